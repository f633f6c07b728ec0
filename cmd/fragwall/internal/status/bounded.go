package status

import (
	"net"
	"slices"
	"sync"
)

// bounded is a listener that has so many connections open at most: for one
// more, the oldest is closed. If newcomers waited instead, clients that connect
// and stay would keep out everybody, health checks among them.
type bounded struct {
	net.Listener
	most int

	mu sync.Mutex
	// mu guards:
	open []*connection // oldest first
}

var _ net.Listener = (*bounded)(nil)

// connection is one of a bounded listener.
type connection struct {
	net.Conn
	of *bounded
}

// Accept closes the oldest connection where there are too many.
func (b *bounded) Accept() (net.Conn, error) {
	accepted, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{accepted, b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) == b.most {
		_ = b.open[0].Conn.Close() // its own Close follows
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, c)
	return c, nil
}

// Close closes the connection, and makes room for another.
func (c *connection) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if i := slices.Index(c.of.open, c); i >= 0 {
		c.of.open = slices.Delete(c.of.open, i, i+1)
	}
	return c.Conn.Close()
}
