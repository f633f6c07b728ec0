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

// Rig is the lanes under test from one port to another, and the far ends of both ports.
type Rig struct {
	Lanes   []tun.Lane
	Offload bool
	// Send makes a frame arrive on the first port. Receive returns the next frame that left
	// through the second port, or an error after [Timeout].
	Send    func(tun.Frame) error
	Receive func() (tun.Frame, error)
	Replies func() (tun.Frame, error) // like Receive, for the first port

	Space    *lab.Namespace // nil if the ports have no kernel device
	From, To tun.Port
	MTU      int // of both
}

// Forward makes all lanes read and write, each in a goroutine, until wait closes them. It writes
// the frames that change returns for each batch. wait returns an error unless all lanes ended
// because they were closed.
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
				// In a flood there may be no room. A test that counts frames notices the loss.
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

// Unchanged is an argument of [Rig.Forward] that writes all frames as they are.
func Unchanged(_ tun.Lane, frames []tun.Frame) []tun.Frame { return frames }

// Names of the devices of a [Rig].
const (
	From = "fw-in"
	To   = "fw-out"
)

// Each runs a test on rigs of several configurations.
type Each func(t *testing.T, test func(t *testing.T, r *Rig))

// OnPorts returns an Each for one kind of port. It fails if a test leaves a descriptor open.
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

// Open returns a rig of two ports of one kind and configuration, whose Name is ignored.
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

// OpenPort opens a port in a namespace, and closes it at the end of the test.
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
