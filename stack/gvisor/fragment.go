package gvisor

import (
	"math/bits"
	"sync"
)

// Frame is a copy of a frame. The zero Frame is none.
type Frame struct{ memory *memory }

// memory holds a frame, in a power of two of bytes.
type memory struct{ frame []byte }

// A frame takes at least 64 bytes, and with offload up to 65,557.
const (
	minFrameBits = 6
	maxFrameBits = 17
)

// free keeps the memory of released frames, by the power of two.
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

// NewFrame copies a frame, which takes a power of two of bytes, at least 64.
// [Frame.Release] lets the memory be used again.
func NewFrame(b []byte) Frame {
	f := allocate(len(b))
	f.write(b)
	return f
}

// Bytes returns the frame, which stays valid until its release.
func (f Frame) Bytes() []byte { return f.memory.frame }

// Release frees the frame.
func (f Frame) Release() {
	f.memory.frame = f.memory.frame[:0]
	free[bits.Len(uint(cap(f.memory.frame)-1))].Put(f.memory)
}

// write appends to a frame, which has room for it.
func (f Frame) write(b []byte) { f.memory.frame = append(f.memory.frame, b...) }

// Fragment is a range of a datagram's payload, and the frame it came in.
type Fragment struct {
	Frame   Frame
	Start   uint16 // offset of its payload in the datagram
	Length  uint16 // of its payload
	Payload uint16 // where its payload begins in the frame
	Network uint8  // where its network header begins in the frame
	More    bool   // the M flag
}

// End returns the offset behind its payload in the datagram.
func (f *Fragment) End() int { return int(f.Start) + int(f.Length) }

// Data returns its payload.
func (f *Fragment) Data() []byte { return f.Frame.Bytes()[f.Payload:][:f.Length] }
