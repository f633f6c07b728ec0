package gvisor

import "gvisor.dev/gvisor/pkg/buffer"

// Frame is a copy of a frame, whose memory pieces of a datagram share while
// gVisor puts it together. The zero Frame is none.
type Frame struct{ view *buffer.View }

// NewFrame copies a frame, which takes a chunk of a power of two, at least 64
// bytes (gVisor, pkg/buffer/chunk.go). [Frame.Release] frees it.
func NewFrame(b []byte) Frame { return Frame{buffer.NewViewWithData(b)} }

// Bytes returns the frame, which stays valid until its release.
func (f Frame) Bytes() []byte { return f.view.AsSlice() }

// Release frees the frame.
func (f Frame) Release() { f.view.Release() }

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

// view returns its payload, which stays where it is.
func (f *Fragment) view() *buffer.View {
	v := f.Frame.view.Clone()
	v.TrimFront(int(f.Payload))
	v.CapLength(int(f.Length))
	return v
}
