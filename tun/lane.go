package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// Lane is one way of the wire: it reads frames from one device and writes
// frames to another, in batches. All but Close, Hold and Shed belongs to one goroutine.
type Lane interface {
	// Name says which devices the lane joins.
	Name() string
	// Read blocks until there is a frame, and returns those that are there,
	// oldest first. They are lent until the next Read. Any error is the lane's
	// end; after Close it wraps [ErrClosed].
	Read() ([]Frame, error)
	// Behind reports whether so many frames waited for the latest Read that
	// they came faster than they were taken.
	Behind() bool
	// Shed returns how many fragments were refused before Read, since they came too
	// fast, so that other datagrams stay whole: all of a datagram, where they come
	// close together. Any goroutine may call it, also once the lane is closed.
	Shed() uint64
	// Credit notes that a datagram in fragments was accepted from a source. Fragments
	// of other networks than those of such sources are refused first.
	Credit(src netip.Addr)
	// Write hands frames over in order, lent ones or others, and keeps none.
	// It may write over what stands in front of a lent frame's data, but leaves
	// the data as they are. A frame that the device refuses does not stop those
	// after it: refused counts them, and err is the first one's.
	Write(frames []Frame) (refused int, err error)
	// Reply hands one frame back to the device that the lane reads, without
	// waiting for room, and keeps none.
	Reply(f Frame) error
	// Hold has Read return an error that wraps [ErrHeld], once, as soon as all frames
	// that the lane took out of the device have been lent: the lane has none then, and
	// the device keeps what comes, until the next Read. Any goroutine may call it.
	Hold() error
	// Close wakes a Read, from any goroutine. The devices stay. Closing again
	// does nothing.
	Close() error
}

// ErrHeld is wrapped by what Read returns after a [Lane.Hold].
var ErrHeld = errors.New("lane held")

// ErrClosed is wrapped by what a closed lane returns.
var ErrClosed = fmt.Errorf("lane closed: %w", os.ErrClosed)
