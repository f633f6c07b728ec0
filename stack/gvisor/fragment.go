package gvisor

import (
	"math/bits"
	"sync"
)

// Frame is a copy of a frame. The zero Frame has no memory.
type Frame struct{ memory *memory }

// memory holds a frame. Its capacity in bytes is a power of two.
type memory struct{ frame []byte }

// A frame takes at least 64 bytes, and with offload up to 65,557.
const (
	minFrameBits = 6
	maxFrameBits = 17
)

// free keeps the memory of released frames, indexed by the power of two.
var free [maxFrameBits + 1]sync.Pool

// allocate returns an empty frame with room for n bytes.
func allocate(n int) Frame {
	size := max(minFrameBits, bits.Len(uint(n-1)))
	m, _ := free[size].Get().(*memory)
	if m == nil {
		m = &memory{make([]byte, 0, 1<<size)}
	}
	return Frame{m}
}

// NewFrame copies a frame. The memory is a power of two of bytes, at least 64. [Frame.Release]
// makes it available again.
func NewFrame(b []byte) Frame {
	f := allocate(len(b))
	f.write(b)
	return f
}

// Bytes returns the frame, which stays valid until it is released.
func (f Frame) Bytes() []byte { return f.memory.frame }

// Release makes the memory of the frame available to other frames.
func (f Frame) Release() {
	f.memory.frame = f.memory.frame[:0]
	free[bits.Len(uint(cap(f.memory.frame)-1))].Put(f.memory)
}

// write appends to a frame, which must have room.
func (f Frame) write(b []byte) { f.memory.frame = append(f.memory.frame, b...) }

// Fragment is a range of a datagram's payload, and the frame that it arrived in.
type Fragment struct {
	Frame   Frame
	Start   uint16 // offset of the payload in the datagram
	Length  uint16 // of the payload
	Payload uint16 // where the payload begins in the frame
	Network uint8  // where the network header begins in the frame
	More    bool   // the M flag
}

// End returns the offset in the datagram of the first byte after the payload.
func (f *Fragment) End() int { return int(f.Start) + int(f.Length) }

// Data returns the payload.
func (f *Fragment) Data() []byte { return f.Frame.Bytes()[f.Payload:][:f.Length] }
