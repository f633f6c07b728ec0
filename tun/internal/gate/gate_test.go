package gate

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// newGate returns a gate and the number of times that it freed its lane.
func newGate(t *testing.T) (g *Gate, freed *int) {
	t.Helper()
	freed = new(int)
	g, err := New(func() error {
		*freed++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, freed
}

func TestCloseIdle(t *testing.T) {
	g, freed := newGate(t)
	if err := errors.Join(g.Close(), g.Close()); err != nil || *freed != 1 {
		t.Errorf("freed %d times: %v", *freed, err)
	}
	if err := g.Enter(); !errors.Is(err, tun.ErrClosed) || !errors.Is(g.Err(), tun.ErrClosed) || !g.Entered() {
		t.Errorf("entered: %v, ended: %v", err, g.Err())
	}
}

// TestCloseUsed closes a lane that is used: Close wakes it, and Leave frees it.
func TestCloseUsed(t *testing.T) {
	g, freed := newGate(t)
	r, w, err := os.Pipe() // stays empty
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Close(), g.Close()); err != nil || *freed != 0 || !g.Closing() {
		t.Errorf("freed %d times while in use: %v", *freed, err)
	}
	if err := g.WaitToRead(int(r.Fd())); err != nil {
		t.Error(err)
	}
	if err := g.Leave(tun.ErrClosed); !errors.Is(err, tun.ErrClosed) || *freed != 1 {
		t.Errorf("freed %d times: %v", *freed, err)
	}
	if err := g.Close(); err != nil || *freed != 1 {
		t.Errorf("freed %d times: %v", *freed, err)
	}
}

// TestLeaveFirst leaves a lane before it is closed.
func TestLeaveFirst(t *testing.T) {
	g, freed := newGate(t)
	if err := errors.Join(g.Enter(), g.Leave(nil), g.Close()); err != nil || *freed != 1 {
		t.Errorf("freed %d times: %v", *freed, err)
	}
}

func TestWaitToWrite(t *testing.T) {
	g, _ := newGate(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd := int(w.Fd())
	if ready, err := g.WaitToWrite(fd, time.Hour); !ready || err != nil {
		t.Errorf("an empty pipe: %v, %v", ready, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if ready, err := g.WaitToWrite(fd, time.Millisecond); ready || err != nil {
		t.Errorf("a full pipe: %v, %v", ready, err)
	}
}

// TestHold checks that a hold wakes a lane that waits to read, once, and that a held lane can
// still wait to write. A closed lane cannot be held.
func TestHold(t *testing.T) {
	g, _ := newGate(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := errors.Join(g.Hold(), g.Hold(), g.Enter()); err != nil || !g.Held() {
		t.Fatalf("held: %v, %v", g.Held(), err)
	}
	if err := g.WaitToRead(int(r.Fd())); err != nil {
		t.Error(err)
	}
	if ready, err := g.WaitToWrite(int(w.Fd()), time.Hour); !ready || err != nil {
		t.Errorf("held, with room: %v, %v", ready, err)
	}
	if err := g.Rest(); !errors.Is(err, tun.ErrHeld) || g.Held() {
		t.Errorf("rest: %v, held %v", err, g.Held())
	}
	if _, err := w.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitToRead(int(r.Fd())); err != nil {
		t.Error(err)
	}
	wake := [...]unix.PollFd{g.wakeUp()}
	if n, err := unix.Poll(wake[:], 0); n != 0 || err != nil {
		t.Errorf("the hold is over and wakes again: %d, %v", n, err)
	}
	if err := errors.Join(g.Close(), g.Hold()); err != nil || g.Held() {
		t.Errorf("held after Close: %v, %v", g.Held(), err)
	}
}
