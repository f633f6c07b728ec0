package daemon

import (
	"errors"
	"net"
	"testing"
)

// TestPausable pauses a listener before clients connect. They must be accepted once it resumes,
// or by another listener of the same socket.
func TestPausable(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newPausable(inner)
	accepted := make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err == nil {
				err = c.Close()
			}
			accepted <- err
			if err != nil {
				return
			}
		}
	}()
	connect := func() {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	connect()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.pause()
		l.pause()
		connect()
		select {
		case err := <-accepted:
			t.Fatalf("accepted while paused: %v", err)
		default:
		}
		l.resume()
		if err := <-accepted; err != nil {
			t.Fatal(err)
		}
	}

	l.pause()
	f, err := inner.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	connect()
	c, err := other.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted with %v after the listener was closed", err)
	}
	l.pause() // has no effect
}

func (p *pausable) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused != nil
}
