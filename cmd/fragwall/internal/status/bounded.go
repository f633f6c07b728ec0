package status

import (
	"net"
	"slices"
	"sync"
)

// bounded is a listener with a maximum number of open connections. For each further one, it
// closes the oldest. If new clients waited instead, clients that stay connected would block all
// others, including health checks.
type bounded struct {
	net.Listener
	most int

	mu sync.Mutex
	// mu guards:
	open []*connection // oldest first
}

var _ net.Listener = (*bounded)(nil)

// connection is a connection of a bounded listener.
type connection struct {
	net.Conn
	of *bounded
}

// Accept closes the oldest connection if there are too many.
func (b *bounded) Accept() (net.Conn, error) {
	accepted, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{accepted, b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) == b.most {
		_ = b.open[0].Conn.Close() // its own Close is called later
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, c)
	return c, nil
}

// Close closes the connection and makes room for another one.
func (c *connection) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if i := slices.Index(c.of.open, c); i >= 0 {
		c.of.open = slices.Delete(c.of.open, i, i+1)
	}
	return c.Conn.Close()
}
