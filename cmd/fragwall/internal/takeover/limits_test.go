package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// setLimits changes the limits until the end of a test.
func setLimits(t *testing.T, l Limits) {
	t.Helper()
	old := limits
	t.Cleanup(func() { limits = old })
	limits = l
}

// TestHang stops the new process at each step of the protocol, with the connection open. The
// old process must continue.
func TestHang(t *testing.T) {
	const short = 300 * time.Millisecond
	for i, want := range []string{"offer", "offer copy release", "offer copy hold save release", "offer copy hold save release"} {
		setLimits(t, Limits{Prepare: short, Copy: short, Hold: short, Step: time.Minute})
		r := newTrial(t, true)
		r.giver.size = 1000 // fits into the buffer of the socket
		said := make(chan error, 1)
		go func() {
			n := newConn(t.Context(), r.next)
			n.wait(time.Minute, time.Minute)
			for _, kind := range []string{kindCopy, kindHold, kindTake}[:i] {
				if err := n.send(message{Kind: kind}, nil, nil); err != nil {
					said <- err
					return
				}
			}
			said <- nil
		}()
		if err := <-said; err != nil {
			t.Fatal(err)
		}
		err := Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "the new process took too long") || r.giver.was() != want {
			t.Errorf("after %d messages: %v, and the calls of the old process were %q, want %q", i, err, r.giver.was(), want)
		}
	}
}

// TestDrip reads the rest of the state so slowly that each chunk is in time, but all of them
// together are not.
func TestDrip(t *testing.T) {
	setLimits(t, Limits{Prepare: time.Minute, Copy: time.Minute, Hold: 200 * time.Millisecond, Step: time.Minute})
	r := newTrial(t, true)
	r.giver.size = 4 << 20
	read := make(chan struct{})
	go func() {
		defer close(read)
		n := newConn(t.Context(), r.next)
		n.wait(time.Minute, time.Minute)
		if err := n.send(message{Kind: kindCopy}, nil, nil); err != nil {
			return
		}
		if _, err := n.receive(kindOffer); err != nil {
			t.Error(err)
		}
		if err := n.receiveState(func(io.Reader) error { return nil }); err != nil {
			t.Error(err)
		}
		if err := n.send(message{Kind: kindHold}, nil, nil); err != nil {
			t.Error(err)
		}
		for b := make([]byte, 1<<10); ; time.Sleep(10 * time.Millisecond) { // the test is about slowness
			if _, err := n.r.Read(b); err != nil {
				return
			}
		}
	}()
	if err := Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if was := r.giver.was(); was != "offer copy hold release" {
		t.Errorf("the calls of the old process were %q", was)
	}
	_ = r.next.Close()
	<-read
}

// TestLate checks that a new process that needs more time than the old one waits does not run, even
// if the old one has ended since: it has removed its devices then.
func TestLate(t *testing.T) {
	for _, alive := range []bool{true, false} {
		setLimits(t, Limits{Prepare: time.Minute, Copy: time.Minute, Hold: 500 * time.Millisecond, Step: time.Minute, Death: time.Second})
		r := newTrial(t, alive)
		giving, given := make(chan error, 1), make(chan struct{})
		r.taker.before["save"] = func() error { <-given; return nil }
		go func() {
			err := Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver)
			close(given)
			giving <- err
		}()
		taken := Take(t.Context(), r.next, r.taker)
		if err := <-giving; err == nil || !errors.Is(taken, errLate) || !strings.HasSuffix(r.giver.was(), "release") {
			t.Errorf("alive %v: given: %v, taken: %v, and the calls of the old process were %q", alive, err, taken, r.giver.was())
		}
	}
}

// TestCanceled tells the new process to stop once it has everything: the old one continues at once.
func TestCanceled(t *testing.T) {
	setLimits(t, Limits{Prepare: time.Hour, Copy: time.Hour, Hold: time.Hour, Step: time.Hour, Death: time.Hour})
	r := newTrial(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	r.taker.before["save"] = func() error { cancel(); return nil }
	giving := make(chan error, 1)
	go func() { giving <- Give(t.Context(), r.old, json.RawMessage(`"request"`), r.giver) }()
	taken := Take(ctx, r.next, r.taker)
	if err := <-giving; err == nil || !errors.Is(taken, context.Canceled) || !strings.HasSuffix(r.giver.was(), "release") {
		t.Errorf("given: %v, taken: %v, and the calls of the old process were %q", err, taken, r.giver.was())
	}
}

// TestDecision makes the old process decide long after the new one has sent "running", as if one of
// them had been stopped by SIGSTOP. The new process must not run before that, nor if the old one
// continues.
func TestDecision(t *testing.T) {
	for _, continues := range []bool{false, true} {
		setLimits(t, Limits{Prepare: time.Minute, Copy: time.Minute, Hold: time.Second, Step: time.Second, Death: time.Millisecond})
		r := newTrial(t, true)
		taken := make(chan error, 1)
		go func() { taken <- Take(t.Context(), r.next, r.taker) }()
		n := newConn(t.Context(), r.old)
		err := r.giveAll(n)
		if err == nil {
			err = n.send(message{Kind: kindGo}, nil, nil)
		}
		if err == nil {
			_, err = n.receive(kindRunning)
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-taken:
			t.Errorf("the new process runs, or has ended, before the old one decided: %v", err)
		case <-time.After(2 * limits.Hold): // the test is about this time
		}
		if continues {
			n.quit(errors.New("too long"))
		}
		n.close()
		if err := <-taken; errors.Is(err, errLate) != continues || (err == nil) == continues {
			t.Errorf("the old process continues: %v; the new one: %v", continues, err)
		}
	}
}

// TestManyFiles sends more descriptors than a process accepts. All of them must be closed.
func TestManyFiles(t *testing.T) {
	r := newTrial(t, true)
	r.giver.Offered()
	before := descriptors(t)
	files := make([]int, maxFiles)
	for i := range files {
		files[i] = int(os.Stdin.Fd())
	}
	go func() {
		n := newConn(t.Context(), r.old)
		n.wait(time.Minute, time.Minute)
		for range maxAllFiles/maxFiles + 2 {
			if n.put(typeFiles, nil, files) != nil {
				return
			}
		}
	}()
	if err := Take(t.Context(), r.next, r.taker); !errors.Is(err, errTooManyFiles) {
		t.Error(err)
	}
	if after := descriptors(t); after != before-1 {
		t.Errorf("%d descriptors, want %d", after, before-1)
	}
}
