package gate

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// Gate is the life cycle of one lane. Close may come from any goroutine; all else
// belongs to the goroutine that uses the lane.
type Gate struct {
	wake    int // an eventfd, readable once the lane is closed
	free    func() error
	closing atomic.Bool

	// Of the goroutine that uses the lane:
	entered bool
	err     error // set once the lane is freed under it

	mu sync.Mutex
	// mu guards what follows.
	used  bool
	freed bool
}

// New returns the gate of a lane that free gives back what it holds; nil where it
// holds nothing.
func New(free func() error) (*Gate, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Gate{wake: fd, free: free}, nil
}

// Entered reports whether Enter was called.
func (g *Gate) Entered() bool { return g.entered }

// Err returns what the lane ended for; nil before its end.
func (g *Gate) Err() error { return g.err }

// Closing reports whether the lane was closed.
func (g *Gate) Closing() bool { return g.closing.Load() }

// Wake returns a descriptor that can be read once the lane is closed while it is
// used.
func (g *Gate) Wake() int { return g.wake }

// Enter takes the lane for the calling goroutine. It returns [tun.ErrClosed] where
// the lane was closed before.
func (g *Gate) Enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entered = true
	if g.freed {
		g.err = tun.ErrClosed
	}
	g.used = !g.freed
	return g.err
}

// WaitToRead blocks until a descriptor has something to read or the lane is closed.
func (g *Gate) WaitToRead(fd int) error {
	_, err := g.wait(fd, unix.POLLIN, -1)
	return err
}

// WaitToWrite blocks until a descriptor takes what is written, for which it reports
// true, the lane is closed, or the time is up.
func (g *Gate) WaitToWrite(fd int, timeout time.Duration) (ready bool, err error) {
	return g.wait(fd, unix.POLLOUT, int(timeout.Milliseconds()))
}

func (g *Gate) wait(fd int, events int16, milliseconds int) (ready bool, err error) {
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

// Leave frees the lane at the end of its use, and returns err.
func (g *Gate) Leave(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used = false
	g.err = err
	// What fails in freeing has no bearing on why the lane came to its end.
	_ = g.release()
	return err
}

// Close wakes the goroutine that uses the lane, or frees the lane where none does.
// Closing again does nothing.
func (g *Gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Swap(true) || g.freed {
		return nil
	}
	if !g.used {
		return g.release()
	}
	if _, err := unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	return nil
}

// release needs mu.
func (g *Gate) release() error {
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
