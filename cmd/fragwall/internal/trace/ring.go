package trace

import (
	"sync/atomic"
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/wire"
)

const (
	// ringSlots is how many slots a ring has, a power of two: as many as the
	// fragments that a datagram may have.
	ringSlots = 8192
	// maxChunk is how many bytes of a frame are in a slot at most; a longer one
	// takes several.
	maxChunk = 2048
)

// ring holds decisions between the goroutines of the wire, any of which may offer
// one at any time, and the one goroutine that takes them out. A decision takes
// consecutive slots: a goroutine reserves them by moving tail, fills them, and then
// publishes each by its turn. Nobody waits for anybody: who finds too few free slots
// counts the frames as missed.
type ring struct {
	snap, chunk int // bytes of each frame, and of what a slot has
	slots       []slot

	tail   atomic.Uint64 // where the next reservation begins
	_      [56]byte      // the reader's cache line is another one
	head   atomic.Uint64 // where the reader is
	missed atomic.Uint64 // frames
}

// slot has a frame, or a part of it. Of a decision without frames there is one slot.
type slot struct {
	turn atomic.Uint64 // position of the slot in what was ever reserved, plus 1, once it is filled

	first  bool // of a decision, which record and frames are of
	frames int  // that are in the ring
	record record.Decision

	length, captured int    // of a frame, on the wire and in the ring, in its first slot
	data             []byte // room for the frame's bytes, or its next ones
}

// newRing returns a ring for so many bytes of each frame; 0 for decisions alone.
func newRing(snap int) *ring {
	r := &ring{snap: snap, chunk: min(snap, maxChunk), slots: make([]slot, ringSlots)}
	room := make([]byte, ringSlots*r.chunk)
	for i := range r.slots {
		r.slots[i].data = room[i*r.chunk : (i+1)*r.chunk]
	}
	return r
}

// kept returns how many bytes of a frame the ring keeps.
func (r *ring) kept(frame []byte) int { return min(len(frame), r.snap) }

// slotsOf returns how many slots so many bytes of a frame take.
func (r *ring) slotsOf(captured int) int {
	if captured <= r.chunk {
		return 1
	}
	return (captured + r.chunk - 1) / r.chunk
}

// offer puts a decision into the ring, where there is room. Any goroutine may call
// it.
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

// put fills the slots of a frame, and returns the position behind them.
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

// reserve reserves so many slots.
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

// next returns the slot that the reader is at; nil where it is not filled yet.
func (r *ring) next() *slot {
	head := r.head.Load()
	if s := r.at(head); s.turn.Load() == head+1 {
		return s
	}
	return nil
}

// release gives the slot that the reader is at back.
func (r *ring) release() { r.head.Add(1) }
