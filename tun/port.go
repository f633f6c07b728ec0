package tun

import (
	"fmt"
	"os"
)

// Frame is one Ethernet frame, without preamble and frame check sequence.
type Frame struct {
	Data []byte
}

// Port reads and writes frames in batches.
type Port interface {
	// Name is the device's.
	Name() string
	// Read blocks until there is a frame, and returns those that are there,
	// oldest first. They are lent until the next Read. After Close the error
	// wraps [ErrClosed].
	Read() ([]Frame, error)
	// Write hands frames over in order and keeps none. A frame that the device
	// refuses does not stop those after it: refused counts them, and err is
	// the first one's.
	Write(frames []Frame) (refused int, err error)
	// Send hands over one frame beside those that are written, and keeps none.
	// Any goroutine may call it at any time; it does not wait for room.
	Send(f Frame) error
	// Close wakes a Read. Closing again does nothing.
	Close() error
}

// ErrClosed is wrapped by what a closed port returns.
var ErrClosed = fmt.Errorf("port closed: %w", os.ErrClosed)

// batch is how many frames a Read returns at most.
const batch = 64
