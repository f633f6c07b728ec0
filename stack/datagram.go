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

// Datagram is an incomplete datagram in the table or, once the table has returned it, its held
// fragments. Their frames stay valid until [Datagram.Release].
type Datagram struct {
	key      key
	number   uint64 // among the datagrams of its shard, in the order in which they began
	family   family
	deadline time.Time
	poisoned bool // discarded: its key is poisoned until the deadline
	bytes    int  // memory it is charged with
	load     *load
	begun    uint64 // how many datagrams its source had begun, including this one
	links    [lists]links

	extent
	fragments []gvisor.Fragment // held, in the order of their offsets

	// Of a Reassembler:
	whole   gvisor.Whole
	rebuilt []gvisor.Frame // the frames of [Datagram.Rebuild]

	// Of a Validator:
	claims claims
	judged bool // the verdict on the first fragment is known
	pinned bool // that verdict is being decided: the datagram must not be released

	// verdict is the verdict on the first fragment or, for a discarded datagram, the reason.
	verdict verdict.Reason
}

// datagrams is a pool of released datagrams, with their slices.
var datagrams = sync.Pool{New: func() any { return new(Datagram) }}

// Side returns the side that the datagram arrived on.
func (d *Datagram) Side() verdict.Side { return d.key.side }

// Src returns the source address.
func (d *Datagram) Src() netip.Addr {
	src := netip.AddrFrom16(d.key.src)
	if d.family == familyIPv4 {
		src = src.Unmap()
	}
	return src
}

// Len returns the number of held frames.
func (d *Datagram) Len() int { return len(d.fragments) }

// Frame returns the frame with the i-th fragment in the order of offsets, exactly as it
// arrived.
func (d *Datagram) Frame(i int) []byte { return d.fragments[i].Frame.Bytes() }

// upperLayerBytes is the least number of payload bytes that a complete datagram exposes, if it
// has that many. Any transport header that a policy reads fits in.
const upperLayerBytes = 64

// Payload returns, for a datagram from a [Reassembler], the beginning of the reassembled
// fragmentable part: the content of the first fragment, or more if the upper-layer header
// extends over several fragments.
func (d *Datagram) Payload() []byte {
	return d.whole.Beginning(max(int(d.fragments[0].Length), min(d.end, upperLayerBytes)))
}

// PayloadLength returns the length of the reassembled fragmentable part, in bytes.
func (d *Datagram) PayloadLength() int { return d.end }

// Rebuild makes new frames from a datagram from a [Reassembler], and returns their number, or
// why it cannot make them ([gvisor.Whole.Rebuild]). No packet in them is longer than mtu, in
// bytes. They stay valid until [Datagram.Release].
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

// detach moves the held frames to a datagram of their own.
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

// fewFragments is the number of fragments that each datagram has room for from the beginning.
const fewFragments = 8

// emptied returns an empty slice for reuse, without the extra capacity that a poisoned or new
// datagram is not charged for.
func emptied[T any](s []T) []T {
	if cap(s) > fewFragments {
		return nil
	}
	return s[:0]
}

// hold keeps a copy of a frame as the i-th held fragment.
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

// extent is what the fragments so far say about the length of their datagram, in bytes of the
// fragmentable part.
type extent struct {
	count   int // fragments
	have    int // bytes of their payload
	reached int // end of the farthest byte of it
	end     int // of the datagram; 0 while the last fragment is missing
	headers int // before the payload; 0 while the first fragment is missing
}

// contradiction returns why a datagram cannot have both the end that a fragment claims and the
// fragments that arrived before.
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

// tooLong reports whether one more fragment would make the datagram longer than the largest IP
// packet. Do not call it for a duplicate, which adds nothing: its extension headers may be
// longer than those of the original.
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

// complete reports whether every byte up to the end has arrived. No two fragments overlap, so
// counting the bytes is enough.
func (e *extent) complete() bool { return e.end != 0 && e.have == e.end }

// completes reports whether the datagram will be complete with one more fragment.
func (e extent) completes(p *packet.Parsed) bool {
	e.note(p)
	return e.complete()
}

// maxPacket is the greatest length in bytes that an IPv4 header (total length) and an IPv6
// header (payload length) can express.
const maxPacket = 65535

// The memory that a table charges, in bytes: for a datagram, the size of its entries; for a
// held frame, what it takes in addition to its copy. TestMemoryCharge measures them.
const (
	datagramCost = 704
	fragmentCost = 96
)

// frameCost returns the memory that holding a frame of length bytes costs. Its copy takes a
// power of two, at least 64 bytes ([gvisor.NewFrame]).
func frameCost(length int) int {
	return fragmentCost + max(64, 1<<bits.Len(uint(length-1)))
}
