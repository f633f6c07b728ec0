package uring

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// openAgain opens a port and hands it over, as to another process.
func openAgain(c tun.Config) (*Port, error) {
	first, err := Open(c)
	if err != nil {
		return nil, err
	}
	second, err := handOver(first, c)
	return second, errors.Join(err, first.Close())
}

// handOver exports a port and returns the port that another process would make of it. The first
// port stays open.
func handOver(first *Port, c tun.Config) (*Port, error) {
	from, err := first.Export()
	if err != nil {
		return nil, err
	}
	files := make([]int, len(from.Files))
	for i, fd := range from.Files {
		if files[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	from.Files = files
	return Import(c, from)
}

// TestRingChangesHands hands a port over while its lane is held. Then either the first lane is
// closed while the second one has fragments in the ring, or the second one is closed and the
// first one continues.
func TestRingChangesHands(t *testing.T) {
	for name, goesOn := range map[string]bool{"for good": false, "and back": true} {
		t.Run(name, func(t *testing.T) { testRingChangesHands(t, goesOn) })
	}
}

func testRingChangesHands(t *testing.T, goesOn bool) {
	c := tun.Config{MTU: 1500, Queues: 1, Fragments: 64}
	first := openCollecting(t, Open, c)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(3000))
	send := func(frames ...[]byte) {
		t.Helper()
		for _, f := range frames {
			if err := first.host.Send(tun.Frame{Data: f}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fragments := func(n int) (frames [][]byte) {
		for range n {
			d.ID++
			frames = append(frames, d.Fragments(1480)[0])
		}
		return frames
	}
	old := first.Lanes[0]
	read := func(batches ...[][]byte) {
		t.Helper()
		for _, frames := range batches {
			send(frames...)
			got, err := old.Read()
			same := slices.EqualFunc(got, frames, func(f tun.Frame, b []byte) bool { return bytes.Equal(f.Data, b) })
			if err != nil || !same {
				t.Fatalf("%d frames, %v, want %d", len(got), err, len(frames))
			}
		}
	}
	wake := [][]byte{lanetest.Number(1, 60)} // wakes the lane
	read(wake, fragments(3))
	if err := old.Hold(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Read(); !errors.Is(err, tun.ErrHeld) {
		t.Fatal(err)
	}
	second := first.handOver(t, c)
	busy := make(chan struct{})
	got, wait := second.read(func(tun.Lane) { <-busy })
	expect := func(frames [][]byte) {
		t.Helper()
		for i, f := range frames {
			select {
			case other := <-got:
				if !bytes.Equal(other.frame.Data, f) {
					t.Fatalf("frame %d of %d differs", i, len(frames))
				}
			case <-time.After(lanetest.Timeout):
				t.Fatalf("%d of %d frames arrived", i, len(frames))
			}
		}
	}
	send(wake...)
	expect(wake)
	for range 2 { // each Read frees the records of the one before
		taken := fragments(5)
		send(taken...)
		busy <- struct{}{}
		expect(taken)
	}
	left := fragments(40)
	send(left...)
	if !goesOn {
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Read(); !errors.Is(err, tun.ErrClosed) {
			t.Error(err)
		}
	}
	busy <- struct{}{}
	expect(left)
	close(busy)
	if err := wait(); err != nil {
		t.Error(err)
	}
	if goesOn {
		lanetest.Do(t, first.Space, func() error { return errors.Join(second.From.Collect(0), first.From.Collect(first.nic)) })
		read(wake, fragments(10))
	}
	if queued := second.queued(); queued != 2 && !goesOn || queued != 3 && goesOn {
		t.Errorf("%d frames went through the queue", queued)
	}
}

// handOver returns a rig whose first port is the one that another process took over.
func (r *collecting) handOver(t *testing.T, c tun.Config) *collecting {
	t.Helper()
	var port *Port
	c.Name = lanetest.From
	lanetest.Do(t, r.Space, func() (err error) {
		port, err = handOver(r.From.(*Port), c)
		return err
	})
	t.Cleanup(func() { _ = port.Close() })
	lanes, err := port.Lanes(r.To)
	if err != nil {
		t.Fatal(err)
	}
	lanetest.Do(t, r.Space, func() error { return errors.Join(r.From.Collect(0), port.Collect(r.nic)) })
	rig := *r.Rig
	rig.From, rig.Lanes = port, lanes
	return &collecting{Rig: &rig, nic: r.nic, host: r.host}
}
