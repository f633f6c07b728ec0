package stack

import (
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// Datagram is a datagram on the table and, once that has handed it out, the
// fragments that waited, whose frames stay valid until [Datagram.Release].
type Datagram struct {
	key      key
	number   uint64 // of its shard's datagrams, in the order in which they began
	family   family
	deadline time.Time
	poisoned bool // given up: it keeps its key from being used until the deadline
	bytes    int  // memory it is charged with
	load     *load
	begun    uint64 // how many its source had begun with it
	links    [lists]links

	extent
	fragments []gvisor.Fragment // in waiting, in the order of their offsets

	// Of a Reassembler:
	whole   gvisor.Whole
	rebuilt []gvisor.Frame // the frames of [Datagram.Rebuild]

	// Of a Validator:
	claims claims
	judged bool // the verdict on the first fragment is known
	pinned bool // that verdict is being asked for: the datagram must not be released

	// verdict is that on the first fragment or, of a datagram that was given up, why.
	verdict verdict.Reason
}

// datagrams keeps those that were released, with their slices.
var datagrams = sync.Pool{New: func() any { return new(Datagram) }}

// Side returns the side that the datagram came in by.
func (d *Datagram) Side() verdict.Side { return d.key.side }

// Src returns the source address.
func (d *Datagram) Src() netip.Addr {
	src := netip.AddrFrom16(d.key.src)
	if d.family == familyIPv4 {
		src = src.Unmap()
	}
	return src
}

// Len returns how many frames wait.
func (d *Datagram) Len() int { return len(d.fragments) }

// Frame returns the frame with the i-th fragment in the order of offsets, byte
// for byte as it came.
func (d *Datagram) Frame(i int) []byte { return d.fragments[i].Frame.Bytes() }

// upperLayerBytes is how much of the payload a whole datagram shows at least,
// where it has that much: any transport header that a policy reads fits.
const upperLayerBytes = 64

// Payload returns, of a datagram from a [Reassembler], the beginning of the
// reassembled fragmentable part: what the first fragment held, and no less
// than the upper-layer header needs where that reaches over several fragments.
func (d *Datagram) Payload() []byte {
	return d.whole.Beginning(max(int(d.fragments[0].Length), min(d.end, upperLayerBytes)))
}

// PayloadLength returns how long the reassembled fragmentable part is, in
// bytes.
func (d *Datagram) PayloadLength() int { return d.end }

// Rebuild makes frames anew out of a datagram from a [Reassembler], and returns
// how many, or why it can't ([gvisor.Whole.Rebuild]). No packet in them is longer
// than mtu, in bytes. They stay valid until [Datagram.Release].
func (d *Datagram) Rebuild(mtu int) (frames int, why verdict.Reason) {
	d.rebuilt, why = d.whole.Rebuild(d.rebuilt, d.fragments, mtu)
	return len(d.rebuilt), why
}

// Rebuilt returns the i-th frame of [Datagram.Rebuild].
func (d *Datagram) Rebuilt(i int) []byte { return d.rebuilt[i].Bytes() }

// Release frees the datagram and its frames.
func (d *Datagram) Release() {
	d.whole.Release()
	d.releaseFrames()
	*d = Datagram{fragments: d.fragments, rebuilt: d.rebuilt, claims: d.claims.cleared()}
	datagrams.Put(d)
}

// detach moves the frames in waiting to a datagram of their own.
func (d *Datagram) detach() *Datagram {
	frames := datagrams.Get().(*Datagram)
	frames.key = d.key
	frames.fragments, d.fragments = d.fragments, frames.fragments
	return frames
}

func (d *Datagram) releaseFrames() {
	for i := range d.fragments {
		d.fragments[i].Frame.Release()
		d.fragments[i].Frame = gvisor.Frame{}
	}
	d.fragments = emptied(d.fragments)
	for i := range d.rebuilt {
		d.rebuilt[i].Release()
		d.rebuilt[i] = gvisor.Frame{}
	}
	d.rebuilt = emptied(d.rebuilt)
}

// fewFragments are what a datagram has room for from the beginning.
const fewFragments = 8

// emptied returns a slice for what comes next, without the room that a poisoned
// or a new datagram is not charged for.
func emptied[T any](s []T) []T {
	if cap(s) > fewFragments {
		return nil
	}
	return s[:0]
}

// hold keeps a copy of a frame as the i-th fragment in waiting.
func (d *Datagram) hold(i int, frame []byte, p *packet.Parsed) {
	if n := len(d.fragments); n == cap(d.fragments) {
		d.fragments = slices.Grow(d.fragments, max(fewFragments, n))
	}
	d.fragments = slices.Insert(d.fragments, i, gvisor.Fragment{
		Frame:   gvisor.NewFrame(frame),
		Start:   uint16(p.Fragment.Offset),
		Length:  uint16(p.End - p.Fragment.Payload),
		Payload: uint16(p.Fragment.Payload),
		Network: uint8(p.Network),
		More:    p.Fragment.More,
	})
}

// extent is what the fragments that came say of their datagram's length, in
// bytes of the fragmentable part.
type extent struct {
	count   int // fragments
	have    int // their payload
	reached int // the farthest byte of it
	end     int // of the datagram; 0 while the last fragment is missing
	headers int // in front of the payload; 0 while the first fragment is missing
}

// contradiction returns why a datagram can't have both the end that a fragment
// claims and those fragments that came before.
func (e *extent) contradiction(p *packet.Parsed) verdict.Reason {
	more := p.Fragment.More
	end := p.Fragment.Offset + p.End - p.Fragment.Payload
	switch {
	case e.end != 0 && more && end == e.end,
		e.end != 0 && !more && end != e.end,
		e.end == 0 && !more && end == e.reached:
		return verdict.FragmentConflictingEnd
	case e.end != 0 && end > e.end, !more && e.reached > end:
		return verdict.FragmentBeyondEnd
	}
	return verdict.Passed
}

// tooLong reports whether the datagram would be longer than an IP packet can be
// with one more fragment. It does not hold for a duplicate, which adds nothing:
// the extension headers in front of it may be longer than those of the original.
func (e extent) tooLong(p *packet.Parsed) bool {
	e.note(p)
	return e.headers+e.reached > maxPacket
}

// note adds a fragment that contradicts nothing.
func (e *extent) note(p *packet.Parsed) {
	length := p.End - p.Fragment.Payload
	end := p.Fragment.Offset + length
	e.count++
	e.have += length
	e.reached = max(e.reached, end)
	if p.Fragment.Offset == 0 {
		e.headers = p.Fragment.Headers
	}
	if !p.Fragment.More {
		e.end = end
	}
}

// complete reports whether every byte up to the end came: no two fragments
// overlap, so it is enough to count.
func (e *extent) complete() bool { return e.end != 0 && e.have == e.end }

// completes reports whether that will be so with one more fragment.
func (e extent) completes(p *packet.Parsed) bool {
	e.note(p)
	return e.complete()
}

// maxPacket is the greatest length in bytes that an IPv4 header (total length)
// and an IPv6 header (payload length) can say.
const maxPacket = 65535

// The memory that a table charges for what it holds, in bytes: for a datagram
// what its entries take, for a frame in waiting what it takes besides its copy.
// TestMemoryCharge measures them.
const (
	datagramCost = 704
	fragmentCost = 96
)

// frameCost returns the memory that waiting costs a frame of length bytes, whose
// copy takes a power of two, at least 64 bytes ([gvisor.NewFrame]).
func frameCost(length int) int {
	return fragmentCost + max(64, 1<<bits.Len(uint(length-1)))
}
