package stack

import (
	"bytes"
	"math/bits"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"fragwall/packet"
)

// Datagram is a datagram in waiting and, once the table has handed it out, a
// whole one, whose frames and payload stay valid until [Datagram.Release].
type Datagram struct {
	key    key
	number uint64 // its name in the engine
	family family

	fragments []fragment // in the order of their offsets
	have      int        // bytes of payload in them
	end       int        // bytes of payload in all; 0 while the last is missing
	headers   int        // bytes of headers in front of them; 0 while the first is missing
	poisoned  bool       // given up: it keeps its key from being used until the deadline

	deadline    time.Time
	bytes       int // memory it is charged with
	engineBytes int // what gVisor counts for it

	load  *load
	links [lists]links

	whole *gstack.PacketBuffer // from the engine
}

// fragment is one frame in waiting: a range of the datagram's payload and the
// bytes it came in.
type fragment struct {
	frame   *buffer.View // the whole frame; ours to Release
	start   uint16       // offset of its payload in the datagram
	length  uint16       // of its payload
	payload uint16       // where its payload begins in the frame
	more    bool         // the M flag
}

func (f *fragment) end() int { return int(f.start) + int(f.length) }

func (f *fragment) data() []byte {
	return f.frame.AsSlice()[f.payload:][:f.length]
}

// datagrams keeps those that were released, with their slices.
var datagrams = sync.Pool{New: func() any { return new(Datagram) }}

// Side returns the side that the datagram came in by.
func (d *Datagram) Side() packet.Side { return d.key.side }

// Len returns how many frames the datagram came in.
func (d *Datagram) Len() int { return len(d.fragments) }

// Frame returns the frame with the i-th fragment in the order of offsets, byte
// for byte as it came.
func (d *Datagram) Frame(i int) []byte { return d.fragments[i].frame.AsSlice() }

// upperLayerBytes is how much of the payload a whole datagram shows at least,
// where it has that much: any transport header that a policy reads fits.
const upperLayerBytes = 64

// Payload returns the beginning of the reassembled fragmentable part: what
// the first fragment held, and no less than the upper-layer header needs
// where that reaches over several fragments.
func (d *Datagram) Payload() []byte {
	n := max(int(d.fragments[0].length), min(d.end, upperLayerBytes))
	b, _ := d.whole.Data().PullUp(n)
	return b
}

// Release frees the datagram and its frames.
func (d *Datagram) Release() {
	if d.whole != nil {
		d.whole.DecRef()
	}
	d.releaseFrames()
	*d = Datagram{fragments: d.fragments}
	datagrams.Put(d)
}

func (d *Datagram) releaseFrames() {
	for i := range d.fragments {
		d.fragments[i].frame.Release()
		d.fragments[i].frame = nil
	}
	d.fragments = d.fragments[:0]
}

// place finds where a fragment belongs, or why it has no place. Only
// [packet.FragmentDuplicate] leaves the datagram sound.
func (d *Datagram) place(frame []byte, p *packet.Parsed) (int, packet.Reason) {
	start := p.Fragment.Offset
	payload := frame[p.Fragment.Payload:p.End]
	end := start + len(payload)

	i, found := slices.BinarySearchFunc(d.fragments, start, func(f fragment, start int) int {
		return int(f.start) - start
	})
	if found && d.fragments[i].end() == end {
		switch {
		case !bytes.Equal(d.fragments[i].data(), payload):
			return 0, packet.FragmentConflict
		case d.fragments[i].more != p.Fragment.More:
			return 0, packet.FragmentConflictingEnd
		}
		return 0, packet.FragmentDuplicate
	}
	reached := 0 // the farthest byte so far
	if n := len(d.fragments); n > 0 {
		reached = d.fragments[n-1].end()
	}
	headers := d.headers
	if start == 0 {
		headers = p.Fragment.Headers
	}
	switch {
	case d.end != 0 && !p.Fragment.More && end != d.end:
		return 0, packet.FragmentConflictingEnd
	case d.end != 0 && end > d.end, !p.Fragment.More && reached > end:
		return 0, packet.FragmentBeyondEnd
	case i > 0 && d.fragments[i-1].end() > start,
		i < len(d.fragments) && int(d.fragments[i].start) < end:
		return 0, packet.FragmentOverlap
	case headers+max(reached, end) > maxPacket:
		return 0, packet.FragmentTooLong
	}
	return i, packet.Passed
}

// insert puts a fragment in its place and returns what to feed the engine:
// its payload is a view of the frame's copy.
func (d *Datagram) insert(i int, frame []byte, p *packet.Parsed) (piece, *buffer.View) {
	f := fragment{
		frame:   buffer.NewViewWithData(frame),
		start:   uint16(p.Fragment.Offset),
		length:  uint16(p.End - p.Fragment.Payload),
		payload: uint16(p.Fragment.Payload),
		more:    p.Fragment.More,
	}
	d.fragments = slices.Insert(d.fragments, i, f)
	d.have += int(f.length)
	if f.start == 0 {
		d.headers = p.Fragment.Headers
	}
	if !f.more {
		d.end = f.end()
	}
	payload := f.frame.Clone()
	payload.TrimFront(int(f.payload))
	payload.CapLength(int(f.length))
	return d.piece(&f), payload
}

func (d *Datagram) piece(f *fragment) piece {
	return piece{family: d.family, number: d.number, offset: int(f.start), more: f.more}
}

// complete reports whether every byte up to the end is there: no two
// fragments overlap, so it is enough to count.
func (d *Datagram) complete() bool { return d.end != 0 && d.have == d.end }

// maxPacket is the greatest length in bytes that an IPv4 header (total length)
// and an IPv6 header (payload length) can say.
const maxPacket = 65535

// Memory that the table charges: for a datagram what its entries take here
// and in gVisor, for a fragment the same besides the copy of its frame. They
// are measured by TestMemoryCharge.
const (
	datagramCharge = 1280
	fragmentCharge = 760
)

// charge returns the memory that waiting costs a frame of length bytes, whose
// copy takes a chunk of a power of two, at least 64 bytes (gVisor,
// pkg/buffer/chunk.go).
func charge(length int) int {
	return fragmentCharge + max(64, 1<<bits.Len(uint(length-1)))
}
