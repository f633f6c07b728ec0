package tun

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Lane is one way of the wire: it reads frames from one device and writes
// frames to another, in batches. All but Close belongs to one goroutine.
type Lane interface {
	// Name says which devices the lane joins.
	Name() string
	// Read blocks until there is a frame, and returns those that are there,
	// oldest first. They are lent until the next Read. Any error is the lane's
	// end; after Close it wraps [ErrClosed].
	Read() ([]Frame, error)
	// Behind reports whether so many frames waited for the latest Read that
	// they came faster than they were taken.
	Behind() bool
	// Write hands frames over in order, lent ones or others, and keeps none.
	// It may write over what stands in front of a lent frame's data, but leaves
	// the data as they are. A frame that the device refuses does not stop those
	// after it: refused counts them, and err is the first one's.
	Write(frames []Frame) (refused int, err error)
	// Reply hands one frame back to the device that the lane reads, without
	// waiting for room, and keeps none.
	Reply(f Frame) error
	// Close wakes a Read, from any goroutine. The devices stay. Closing again
	// does nothing.
	Close() error
}

// ErrClosed is wrapped by what a closed lane returns.
var ErrClosed = fmt.Errorf("lane closed: %w", os.ErrClosed)

// gate lets a lane be closed from anywhere while one goroutine uses it, and
// frees what the lane holds once, after the last use.
type gate struct {
	wake    int // an eventfd, readable once the lane is closed
	free    func() error
	closing atomic.Bool

	// Of the goroutine that uses the lane:
	entered bool
	end     error // set once the lane is freed under it

	mu sync.Mutex
	// mu guards what follows.
	taken bool // a goroutine uses the lane
	freed bool
}

func newGate() (*gate, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &gate{wake: fd}, nil
}

// enter takes the lane for its goroutine.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entered = true
	if g.freed {
		g.end = ErrClosed
	}
	g.taken = !g.freed
	return g.end
}

// waitToRead blocks until a TAP has a frame or the lane is closed.
func (g *gate) waitToRead(fd int) error {
	_, err := g.wait(fd, unix.POLLIN, -1)
	return err
}

// waitToWrite blocks until a TAP takes frames, for which it reports true, the
// lane is closed, or so much time has passed.
func (g *gate) waitToWrite(fd int, patience time.Duration) (ready bool, err error) {
	return g.wait(fd, unix.POLLOUT, int(patience.Milliseconds()))
}

func (g *gate) wait(fd int, events int16, milliseconds int) (ready bool, err error) {
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(g.wake), Events: unix.POLLIN}}
	for {
		switch _, err := unix.Poll(fds[:], milliseconds); err {
		case nil:
			return fds[0].Revents != 0, nil
		case unix.EINTR:
		default:
			return false, fmt.Errorf("poll: %w", err)
		}
	}
}

// leave frees the lane at the end of its use, and passes err on.
func (g *gate) leave(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken = false
	g.end = err
	// What fails in freeing has no bearing on why the lane came to its end.
	_ = g.release()
	return err
}

// close wakes the goroutine that uses the lane, or frees the lane.
func (g *gate) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Swap(true) || g.freed {
		return nil
	}
	if !g.taken {
		return g.release()
	}
	if _, err := unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	return nil
}

// release needs mu.
func (g *gate) release() error {
	if g.freed {
		return nil
	}
	g.freed = true
	var err error
	if g.free != nil {
		err = g.free()
	}
	_ = unix.Close(g.wake)
	return err
}
