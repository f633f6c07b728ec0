package daemon

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pausable is a listener that accepts no connections while it is paused. They wait in the queue
// of the socket, for this process or for another one that has the same socket.
type pausable struct {
	deadliner

	mu     sync.Mutex
	paused chan struct{} // closed by resume and Close; nil while the listener accepts
	closed bool
}

// deadliner is a listener of a socket: [net.TCPListener] or [net.UnixListener].
type deadliner interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

// newPausable returns a listener that can be paused.
func newPausable(l net.Listener) *pausable { return &pausable{deadliner: l.(deadliner)} }

// Accept waits for a connection, and while the listener is paused.
func (p *pausable) Accept() (net.Conn, error) {
	for {
		c, err := p.deadliner.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		p.mu.Lock()
		paused := p.paused
		p.mu.Unlock()
		if paused != nil {
			<-paused
		}
	}
}

// pause makes Accept wait. An Accept that is about to return may still return a connection.
func (p *pausable) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused == nil && !p.closed {
		p.paused = make(chan struct{})
		_ = p.SetDeadline(time.Unix(1, 0))
	}
}

// resume ends the pause.
func (p *pausable) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.SetDeadline(time.Time{})
	p.wake()
}

// Close closes the listener, also while it is paused.
func (p *pausable) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	err := p.deadliner.Close() // before an Accept that waits tries again
	p.wake()
	return err
}

// wake wakes all calls of Accept that wait for the end of the pause. The caller holds mu.
func (p *pausable) wake() {
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
}
