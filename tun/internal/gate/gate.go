package gate

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
)

// Gate is the life cycle of one lane. Any goroutine may call Close and Hold. All other methods
// belong to the goroutine that uses the lane.
type Gate struct {
	wake    int // an eventfd, readable while the lane is closed or held
	free    func() error
	closing atomic.Bool
	held    atomic.Bool // from Hold to Rest

	// These belong to the goroutine that uses the lane.
	entered bool
	err     error // why the lane ended; nil before

	mu sync.Mutex
	// mu guards what follows.
	used  bool
	freed bool
}

// New returns the gate of a lane. free releases the lane's resources; it is nil if the lane has
// none.
func New(free func() error) (*Gate, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Gate{wake: fd, free: free}, nil
}

// Entered reports whether Enter was called.
func (g *Gate) Entered() bool { return g.entered }

// Err returns the error that ended the lane, or nil before its end.
func (g *Gate) Err() error { return g.err }

// Closing reports whether the lane was closed.
func (g *Gate) Closing() bool { return g.closing.Load() }

// Held reports whether Hold was called and Rest was not called since.
func (g *Gate) Held() bool { return g.held.Load() }

// Wake returns a descriptor that is readable while the lane is closed or held.
func (g *Gate) Wake() int { return g.wake }

// Enter assigns the lane to the calling goroutine. It returns [tun.ErrClosed] if the lane is
// closed.
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

// WaitToRead blocks until a descriptor is readable, or the lane is closed or held.
func (g *Gate) WaitToRead(fd int) error {
	_, err := g.wait(-1, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, g.wakeUp())
	return err
}

// WaitToWrite blocks until a descriptor is writable, the lane is closed or the timeout expires. It
// reports whether the descriptor is writable. A hold does not end the wait, because the lane must
// still write the frames that it has read. It restarts the timeout, and from then on Close does
// not end the wait either.
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

// wait blocks until one of the descriptors is ready or the timeout expires; -1 means no timeout.
// It reports whether the first descriptor is ready.
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

// Leave frees the lane at the end of its use. It returns err, which Err then returns, too.
func (g *Gate) Leave(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used = false
	g.err = err
	// An error of release is not the reason for the end of the lane.
	_ = g.release()
	return err
}

// Close wakes the goroutine that uses the lane. If no goroutine uses it, Close frees the lane.
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

// Hold wakes the goroutine that uses the lane, or that will use it, so that it calls [Gate.Rest].
// It does nothing if the lane is closed.
func (g *Gate) Hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing.Load() || g.freed || g.held.Swap(true) {
		return nil
	}
	return g.wakeUser()
}

// Rest ends the hold and returns [tun.ErrHeld].
func (g *Gate) Rest() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held.Store(false)
	if !g.closing.Load() {
		var count [8]byte
		_, _ = unix.Read(g.wake, count[:]) // clears what Hold wrote
	}
	return tun.ErrHeld
}

// wakeUser makes the eventfd readable. The caller holds mu.
func (g *Gate) wakeUser() error {
	if _, err := unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	return nil
}

// release frees the lane and the eventfd, once. The caller holds mu.
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
