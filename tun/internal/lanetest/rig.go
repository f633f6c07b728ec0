package lanetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/lab"
)

// Rig is lanes from one port to another under trial, and the far ends of the ports.
type Rig struct {
	Lanes   []tun.Lane
	Offload bool
	// Send has a frame come in by the first port, Receive returns the next that left
	// by the second, or an error after a while.
	Send    func(tun.Frame) error
	Receive func() (tun.Frame, error)
	Replies func() (tun.Frame, error) // what comes back from the first

	Space    *lab.Namespace // nil where there is no kernel device
	From, To tun.Port
	MTU      int // of both
}

// Forward reads and writes until the lanes are closed, and hands each batch to
// change before.
func (r *Rig) Forward(change func(tun.Lane, []tun.Frame) []tun.Frame) (wait func() error) {
	var group sync.WaitGroup
	ends := make(chan error, len(r.Lanes))
	for _, l := range r.Lanes {
		group.Go(func() {
			for {
				frames, err := l.Read()
				if err != nil {
					ends <- err
					return
				}
				// A flood may find no room; who counts frames misses those.
				if refused, err := l.Write(change(l, frames)); err != nil && !errors.Is(err, unix.EAGAIN) {
					ends <- fmt.Errorf("%d refused: %w", refused, err)
					return
				}
			}
		})
	}
	return func() error {
		for _, l := range r.Lanes {
			if err := l.Close(); err != nil {
				return err
			}
		}
		group.Wait()
		for range r.Lanes {
			if err := <-ends; !errors.Is(err, tun.ErrClosed) {
				return err
			}
		}
		return nil
	}
}

// Unchanged is for [Rig.Forward].
func Unchanged(_ tun.Lane, frames []tun.Frame) []tun.Frame { return frames }

// Names of the devices of a [Rig].
const (
	From = "fw-in"
	To   = "fw-out"
)

// Each runs a test on a rig of each sort that there is.
type Each func(t *testing.T, test func(t *testing.T, r *Rig))

// OnPorts returns what runs a test on ports of one kind, of many configurations. It
// fails where something is left open afterwards.
func OnPorts[P tun.Port](open func(tun.Config) (P, error)) Each {
	return func(t *testing.T, test func(t *testing.T, r *Rig)) {
		for _, c := range []tun.Config{
			{MTU: 1500, Queues: 1},
			{MTU: 1500, Queues: 1, Offload: true},
			{MTU: 9000, Queues: 2},
			{MTU: 1500, Queues: 2, Offload: true},
		} {
			name := fmt.Sprintf("mtu=%d/queues=%d/offload=%v", c.MTU, c.Queues, c.Offload)
			t.Run(name, func(t *testing.T) {
				before := Descriptors(t)
				t.Run("", func(t *testing.T) { test(t, Open(t, open, c)) })
				if n := Descriptors(t); n != before {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
		}
	}
}

// Open returns a rig of two ports of one kind and configuration, which names none.
func Open[P tun.Port](t *testing.T, open func(tun.Config) (P, error), c tun.Config) *Rig {
	t.Helper()
	r := &Rig{Space: Namespace(t), Offload: c.Offload, MTU: c.MTU}
	r.From, r.To = OpenPort(t, r.Space, open, From, c), OpenPort(t, r.Space, open, To, c)
	var err error
	if r.Lanes, err = r.From.Lanes(r.To); err != nil {
		Require(t, err)
	}
	t.Cleanup(func() {
		for _, l := range r.Lanes {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	near, far := OpenSocket(t, r.Space, From), OpenSocket(t, r.Space, To)
	r.Send, r.Receive, r.Replies = near.Send, far.Receive, near.Receive
	return r
}

// OpenPort opens a port in a namespace, until the test's end.
func OpenPort[P tun.Port](t *testing.T, n *lab.Namespace, open func(tun.Config) (P, error), name string, c tun.Config) (port P) {
	t.Helper()
	Do(t, n, func() (err error) {
		c.Name = name
		port, err = open(c)
		return err
	})
	t.Cleanup(func() {
		if err := port.Close(); err != nil {
			t.Error(err)
		}
	})
	return port
}
