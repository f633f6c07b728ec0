package status

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// unanswered is the set of connections whose client waits for an answer, or has not sent its
// first request yet. [http.Server.Shutdown] closes a connection without an answer if it reads
// the request after Shutdown was called.
type unanswered struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	none  chan struct{} // closed when the set is empty; nil if no goroutine waits for that
}

// note records the state of a connection. It is the server's ConnState.
func (u *unanswered) note(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch state {
	case http.StateNew, http.StateActive:
		if u.conns == nil {
			u.conns = map[net.Conn]struct{}{}
		}
		u.conns[c] = struct{}{}
	default:
		delete(u.conns, c)
		if len(u.conns) == 0 && u.none != nil {
			close(u.none)
			u.none = nil
		}
	}
}

// wait waits until the set is empty, or until a timeout. Only one goroutine may wait.
func (u *unanswered) wait(timeout time.Duration) {
	u.mu.Lock()
	if len(u.conns) == 0 {
		u.mu.Unlock()
		return
	}
	none := make(chan struct{})
	u.none = none
	u.mu.Unlock()
	select {
	case <-none:
	case <-time.After(timeout):
	}
}
