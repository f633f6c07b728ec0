package gate

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// Gate is the life cycle of one lane. Close and Hold may come from any goroutine; all
// else belongs to the goroutine that uses the lane.
type Gate struct {
	wake    int // an eventfd, readable once the lane is closed or held
	free    func() error
	closing atomic.Bool
	held    atomic.Bool // and has not rested

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

// Held reports whether the lane was held, and has not rested since.
func (g *Gate) Held() bool { return g.held.Load() }

// Wake returns a descriptor that can be read once the lane is closed or held while it
// is used.
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

// WaitToRead blocks until a descriptor has something to read, or the lane is closed or
// held.
func (g *Gate) WaitToRead(fd int) error {
	_, err := g.wait(-1, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, g.wakeUp())
	return err
}

// WaitToWrite blocks until a descriptor takes what is written, for which it reports
// true, the lane is closed, or the time is up.
//
// A lane that is held still writes what it has taken.
func (g *Gate) WaitToWrite(fd int, timeout time.Duration) (ready bool, err error) {
	out, milliseconds := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}, int(timeout.Milliseconds())
	if !g.Held() {
		ready, err = g.wait(milliseconds, out, g.wakeUp())
	}
	if !ready && err == nil && g.Held() && !g.Closing() {
		ready, err = g.wait(milliseconds, out)
	}
	return ready, err
}

func (g *Gate) wakeUp() unix.PollFd { return unix.PollFd{Fd: int32(g.wake), Events: unix.POLLIN} }

// wait blocks until something happens to one of the descriptors, and reports whether it
// did to the first.
func (g *Gate) wait(milliseconds int, fds ...unix.PollFd) (ready bool, err error) {
	for {
		switch _, err := unix.Poll(fds, milliseconds); err {
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
	return g.wakeUser()
}

// Hold wakes the goroutine that uses the lane, or lets it begin with [Gate.Rest]. It
// does nothing to a lane that is closed.
func (g *Gate) Hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Load() || g.freed || g.held.Swap(true) {
		return nil
	}
	return g.wakeUser()
}

// Rest ends what Hold began, and returns [tun.ErrHeld].
func (g *Gate) Rest() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held.Store(false)
	if !g.closing.Load() {
		var count [8]byte
		_, _ = unix.Read(g.wake, count[:]) // which Hold has written
	}
	return tun.ErrHeld
}

// wakeUser needs mu.
func (g *Gate) wakeUser() error {
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
