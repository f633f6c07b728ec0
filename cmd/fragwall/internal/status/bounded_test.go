package status

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener to which clients connect by a channel.
type pipes struct {
	clients chan net.Conn
	closed  chan struct{}
	net.Listener
}

func newPipes() pipes { return pipes{clients: make(chan net.Conn), closed: make(chan struct{})} }

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.clients:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error { close(p.closed); return nil }

// TestCrowd has more clients than may be connected at once: whoever is connected
// longest makes room for the next, though all were served and might ask again.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := newSource(t)
		ctx, cancel := context.WithCancel(t.Context())
		l := newPipes()
		ended := make(chan error, 1)
		go func() { ended <- NewServer(source, nil, "").Serve(ctx, l) }()
		type client struct {
			net.Conn
			answers *bufio.Reader
		}
		connect := func() client {
			near, far := net.Pipe()
			l.clients <- near
			return client{far, bufio.NewReader(far)}
		}
		served := func(c client) bool {
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return false
			}
			answer, err := http.ReadResponse(c.answers, nil)
			if err != nil {
				return false
			}
			_, err = io.Copy(io.Discard, answer.Body)
			return err == nil && answer.StatusCode == http.StatusOK
		}
		var crowd []client
		for i := range maxConnections + 2 {
			c := connect()
			if !served(c) {
				t.Fatalf("client %d is not served", i)
			}
			crowd = append(crowd, c)
		}
		for i, c := range crowd {
			if got, want := served(c), i >= 2; got != want {
				t.Errorf("client %d of %d is served again: %v", i, len(crowd), got)
			}
		}
		_ = crowd[5].Close() // who goes makes room, too
		synctest.Wait()
		crowd = append(crowd, connect())
		for _, i := range []int{2, len(crowd) - 1} {
			if !served(crowd[i]) {
				t.Errorf("client %d is not served after another went", i)
			}
		}
		cancel()
		<-ended
	})
}

// TestSilentClient ends the server while a client is connected that never asked.
func TestSilentClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := newSource(t)
		ctx, cancel := context.WithCancel(t.Context())
		l := newPipes()
		ended := make(chan error, 1)
		go func() { ended <- NewServer(source, nil, "").Serve(ctx, l) }()
		near, far := net.Pipe()
		l.clients <- near
		synctest.Wait()
		begun := time.Now()
		cancel()
		<-ended
		if took := time.Since(begun); took > shutdownTimeout {
			t.Errorf("the end took %v", took)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client is still connected: %v", err)
		}
	})
}
