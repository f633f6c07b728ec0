package trace

import (
	"sync/atomic"
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/wire"
)

const (
	// ringSlots is the number of slots in a ring, a power of two. It is the maximum number of
	// fragments of a datagram, so that a datagram fits.
	ringSlots = 8192
	// maxChunk is the maximum number of bytes per slot. A longer frame takes several slots.
	maxChunk = 2048
)

// ring passes decisions from the goroutines of the wire, which may all offer at the same time,
// to one reader. A decision takes consecutive slots. A writer reserves them by moving tail,
// fills them, and publishes each by storing its turn. No caller blocks: if too few slots are
// free, offer counts the frames as missed.
type ring struct {
	snap, chunk int // bytes kept per frame, and per slot
	slots       []slot

	tail   atomic.Uint64 // where the next reservation begins
	_      [56]byte      // puts the reader's fields on another cache line
	head   atomic.Uint64 // position of the reader
	missed atomic.Uint64 // number of frames
}

// slot holds a frame or a part of it. A decision without frames takes one slot.
type slot struct {
	turn atomic.Uint64 // position of the slot, counted since the ring was made, plus 1; stored once the slot is filled

	first  bool // whether it is the first slot of a decision; record and frames are set only there
	frames int  // number of frames that follow in the ring
	record record.Decision

	length, captured int    // of the frame: on the wire, and in the ring
	data             []byte // bytes of the frame, or of this part
}

// newRing returns a ring that keeps at most snap bytes per frame; 0 for decisions without
// frames.
func newRing(snap int) *ring {
	r := &ring{snap: snap, chunk: min(snap, maxChunk), slots: make([]slot, ringSlots)}
	room := make([]byte, ringSlots*r.chunk)
	for i := range r.slots {
		r.slots[i].data = room[i*r.chunk : (i+1)*r.chunk]
	}
	return r
}

// kept returns the number of bytes that the ring keeps of a frame.
func (r *ring) kept(frame []byte) int { return min(len(frame), r.snap) }

// slotsOf returns the number of slots for a number of captured bytes.
func (r *ring) slotsOf(captured int) int {
	if captured <= r.chunk {
		return 1
	}
	return (captured + r.chunk - 1) / r.chunk
}

// offer puts a decision into the ring if there is room. It is safe for concurrent use.
func (r *ring) offer(d *wire.Decision, at time.Time) {
	frames, need := d.Frames(), 0
	for i := range frames {
		need += r.slotsOf(r.kept(d.Frame(i)))
	}
	if r.snap == 0 {
		need = 1
	}
	position, ok := r.reserve(need)
	if !ok {
		r.missed.Add(uint64(frames))
		return
	}
	first := r.at(position)
	first.first, first.record, first.frames = true, record.Of(d, at), 0
	if r.snap == 0 {
		first.turn.Store(position + 1)
		return
	}
	first.frames = frames
	for i := range frames {
		position = r.put(position, d.Frame(i), i == 0)
	}
}

// put fills the slots of a frame, and returns the position after them.
func (r *ring) put(position uint64, frame []byte, first bool) uint64 {
	left := frame[:r.kept(frame)]
	for part := range r.slotsOf(len(left)) {
		s := r.at(position)
		s.first = first && part == 0
		s.length, s.captured = len(frame), r.kept(frame)
		left = left[copy(s.data, left):]
		position++
		s.turn.Store(position)
	}
	return position
}

// reserve reserves need consecutive slots.
func (r *ring) reserve(need int) (position uint64, ok bool) {
	for {
		position = r.tail.Load()
		if position+uint64(need)-r.head.Load() > ringSlots {
			return 0, false
		}
		if r.tail.CompareAndSwap(position, position+uint64(need)) {
			return position, true
		}
	}
}

func (r *ring) at(position uint64) *slot { return &r.slots[position%ringSlots] }

// next returns the slot at the reader's position, or nil if it is not filled yet.
func (r *ring) next() *slot {
	head := r.head.Load()
	if s := r.at(head); s.turn.Load() == head+1 {
		return s
	}
	return nil
}

// release frees the slot at the reader's position.
func (r *ring) release() { r.head.Add(1) }
