package stack

import (
	"bytes"
	"slices"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// Reassembler is a table that holds fragments until gVisor has reassembled their datagram.
type Reassembler struct{ intake }

// NewReassembler returns an empty Reassembler. [Table.Close] frees it.
func NewReassembler(o Options) Reassembler {
	return Reassembler{intake{Table: newTable(o, true), ledger: o.Ledger}}
}

// With returns the same table for use by another goroutine, with its own ledger.
func (r *Reassembler) With(l Ledger) Reassembler {
	return Reassembler{intake{Table: r.Table, ledger: l}}
}

// Add takes in a fragment: the frame, which it copies; the result of decoding it, with
// p.Fragment.Present set; the side it arrived on; and the time.
//
// If the fragment completes the datagram, Add returns the datagram, and the caller releases it.
// Otherwise Add returns why the fragment was dropped, or [verdict.Passed] if it is held. From
// then on the ledger accounts for it.
func (r *Reassembler) Add(frame []byte, p *packet.Parsed, side verdict.Side, now time.Time) (*Datagram, verdict.Reason) {
	k := keyOf(p, side)
	from := k.source()
	s := r.lock(from)
	defer s.mu.Unlock()
	return s.reassemble(frame, p, k, from, now)
}

func (s *shard) reassemble(frame []byte, p *packet.Parsed, k key, from source, now time.Time) (*Datagram, verdict.Reason) {
	d := s.find(k, from, now)
	if d.superseded() {
		s.discard(d, verdict.FragmentSuperseded)
		d = s.find(k, from, now)
	}
	if d.poisoned {
		return nil, verdict.FragmentPoisoned
	}
	at, why := d.place(frame, p)
	switch {
	case why == verdict.FragmentDuplicate:
		return nil, why
	case why == verdict.Passed && d.count == s.options.MaxFragments:
		why = verdict.FragmentTooMany
	}
	if why != verdict.Passed {
		s.poison(d, why)
		return nil, why
	}

	whole := d.completes(p)
	bytes := frameCost(len(frame))
	if !whole { // otherwise all of it is about to leave
		if s.makeRoom(bytes, 0) && s.waiting[k] != d {
			return nil, verdict.FragmentEvicted
		}
	}
	s.charge(d, bytes)
	d.hold(at, frame, p)
	d.note(p)
	s.ledger.Held(d)
	if !whole {
		return nil, verdict.Passed
	}
	return s.finish(d), verdict.Passed
}

// reuse is the number of later datagrams of the same source after which a repeated
// identification means that the old, incomplete datagram is lost. An IPv4 identification has 16
// bits. A sender of 60,000 datagrams per second reuses each identification thirty times before
// the deadline of a datagram (RFC 4963 §2). Without this limit, a datagram that has lost a
// fragment once, or contradicted itself, would make one of the sender's datagrams after another
// fail. The limit is half of the identifications, since other hosts may send from the prefix
// too, and not every datagram that a host numbers is fragmented.
const reuse = 1 << 15

// superseded reports whether the identification of a datagram now stands for another one. No
// fragment of the old datagram has left or will leave, so the new one cannot overlap it at the
// receiver.
func (d *Datagram) superseded() bool {
	return d.family == familyIPv4 && d.load.begun-d.begun >= reuse
}

// place finds the position of a fragment among the others, or why it has none. Only after
// [verdict.FragmentDuplicate] the datagram is still valid.
func (d *Datagram) place(frame []byte, p *packet.Parsed) (int, verdict.Reason) {
	if why := d.contradiction(p); why != verdict.Passed {
		return 0, why
	}
	payload := frame[p.Fragment.Payload:p.End]
	start, end := p.Fragment.Offset, p.Fragment.Offset+len(payload)
	i, found := d.search(start)
	switch {
	case found && d.fragments[i].End() == end && bytes.Equal(d.fragments[i].Data(), payload):
		return 0, verdict.FragmentDuplicate
	case found && d.fragments[i].End() == end:
		return 0, verdict.FragmentConflict
	case i > 0 && d.fragments[i-1].End() > start,
		i < len(d.fragments) && int(d.fragments[i].Start) < end:
		return 0, verdict.FragmentOverlap
	case d.tooLong(p):
		return 0, verdict.FragmentTooLong
	}
	return i, verdict.Passed
}

// finish removes a datagram from the table once all its bytes have arrived, and returns it if
// gVisor agrees.
func (s *shard) finish(d *Datagram) *Datagram {
	s.remove(d)
	whole, ok := s.engine.Reassemble(d.fragments)
	d.whole = whole
	if ok && whole.Size() == d.end {
		return d
	}
	s.ledger.Dropped(d, verdict.FragmentDisagreement)
	return nil
}

// search finds the fragment that begins at start, or the position where it would be.
func (d *Datagram) search(start int) (int, bool) {
	if n := len(d.fragments); n == 0 || int(d.fragments[n-1].Start) < start {
		return n, false
	}
	return slices.BinarySearchFunc(d.fragments, start, func(f gvisor.Fragment, start int) int {
		return int(f.Start) - start
	})
}
