package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// Lane reads frames from one device and writes frames to another, in batches. Only Close, Hold
// and Shed may be called from any goroutine. The other methods belong to one goroutine.
type Lane interface {
	// Name returns the names of the two devices.
	Name() string
	// Read blocks until frames are available and returns them, oldest first. They are valid
	// until the next Read. After an error other than [ErrHeld] the lane is unusable. After
	// Close the error wraps [ErrClosed].
	Read() ([]Frame, error)
	// Behind reports whether so many frames waited for the last Read that they arrive faster
	// than the lane reads them.
	Behind() bool
	// Shed returns the number of fragments that were refused before Read because they arrived
	// too fast. Fragments of the same datagram that arrive close together are all refused, so
	// that other datagrams stay whole. Any goroutine may call Shed, also after Close.
	Shed() uint64
	// Credit records that a fragmented datagram from a source was accepted. Under overload,
	// fragments of sources without credit are refused first.
	Credit(src netip.Addr)
	// Write writes frames in order, those that Read returned or others. It does not keep them.
	// It may overwrite the bytes before the data of a frame that Read returned, but not the
	// data. If the device refuses a frame, Write continues with the next one. refused is the
	// number of refused frames, and err is the error of the first.
	Write(frames []Frame) (refused int, err error)
	// Reply writes one frame to the device that the lane reads. It does not wait for room, and
	// does not keep the frame.
	Reply(f Frame) error
	// Hold makes one Read return an error that wraps [ErrHeld] after the lane has returned all
	// frames that it took from the device. Until the next Read the lane holds no frames, and
	// the device queues those that arrive. Any goroutine may call Hold.
	Hold() error
	// Close wakes a Read. It does not close the devices. Any goroutine may call it. Closing
	// again does nothing.
	Close() error
}

// ErrHeld is wrapped by the error of a Read after [Lane.Hold].
var ErrHeld = errors.New("lane held")

// ErrClosed is wrapped by the errors of a closed lane.
var ErrClosed = fmt.Errorf("lane closed: %w", os.ErrClosed)
