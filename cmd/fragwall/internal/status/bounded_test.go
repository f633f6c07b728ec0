package status

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener that accepts connections from a channel.
type pipes struct {
	clients chan net.Conn
	closed  chan struct{}
	close   func()
	net.Listener
}

func newPipes() pipes {
	p := pipes{clients: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.clients:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error { p.close(); return nil }

// TestCrowd connects more clients than the limit: the oldest connection is closed for each new
// one, even if all clients are active.
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
		_ = crowd[5].Close() // a client that disconnects also makes room
		synctest.Wait()
		crowd = append(crowd, connect())
		for _, i := range []int{2, len(crowd) - 1} {
			if !served(crowd[i]) {
				t.Errorf("client %d is not served after another one disconnected", i)
			}
		}
		cancel()
		<-ended
	})
}

// TestLeaving checks that, when another process takes over, connected clients are answered, for
// the last time on their connections, and that a silent client delays the end by at most
// leaveTimeout.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := newSource(t)
		ctx, cancel := context.WithCancel(t.Context())
		l, s := newPipes(), NewServer(source, nil, "")
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		connect := func() net.Conn {
			near, far := net.Pipe()
			l.clients <- near
			synctest.Wait()
			return far
		}
		ask := func(c net.Conn) (last bool) {
			t.Helper()
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
			}
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("%+v, %v", response, err)
			}
			return response.Close
		}
		before, during, after, silent := connect(), connect(), connect(), connect()
		if ask(before) {
			t.Error("the connection ends before another process takes over")
		}
		s.SetLeaving(true)
		for _, c := range []net.Conn{before, during} {
			if !ask(c) {
				t.Error("the connection does not end with an answer while another process takes over")
			}
		}
		begun := time.Now()
		cancel()
		time.Sleep(leaveTimeout / 2)
		if !ask(after) {
			t.Error("the connection does not end after another process took over")
		}
		<-ended
		if took := time.Since(begun); took != leaveTimeout {
			t.Errorf("the end took %v, want %v", took, leaveTimeout)
		}
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client is still connected: %v", err)
		}
	})
}

// TestSilentClient ends the server while a client is connected that sent no request.
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
