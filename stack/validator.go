package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Validator is a table that records which bytes of a datagram its fragments have claimed, and
// the verdict on the first fragment, which applies to the rest. It holds frames only until the
// first fragment has arrived.
type Validator struct{ intake }

// NewValidator returns an empty Validator. [Table.Close] frees it.
func NewValidator(o Options) Validator {
	return Validator{intake{Table: newTable(o, false), ledger: o.Ledger}}
}

// With returns the same table for use by another goroutine, with its own ledger.
func (v *Validator) With(l Ledger) Validator {
	return Validator{intake{Table: v.Table, ledger: l}}
}

// Claim is the place that a fragment has taken in its datagram.
type Claim struct {
	// Waits is set if the first fragment has not arrived: the frame was copied, and the ledger
	// accounts for it.
	Waits bool

	first *Datagram // the datagram of a first fragment; pinned until it is settled
	shard *shard
}

// First reports whether the fragment is the first of its datagram. If so, the caller judges it
// and calls [Validator.Settle] once.
func (c Claim) First() bool { return c.first != nil }

// Claim records a fragment: the frame; the result of decoding it, with p.Fragment.Present set;
// the side it arrived on; and the time.
//
// It returns why the fragment was dropped, which may be the verdict on the first fragment, or
// [verdict.Passed]. In the latter case the fragment is held, or is to be judged as the first of
// its datagram, or is forwarded from the buffer that it arrived in.
//
// No byte of a datagram is forwarded twice. A fragment with the same range as another one is
// dropped alone, since no copy is left to compare it with. A fragment that covers a part of
// others poisons the datagram, as do all contradictions. A datagram is forgotten once all its
// bytes have arrived, so that its identification can be used again. Fragments that arrive
// afterwards begin a new datagram, with its own verdict.
func (v *Validator) Claim(frame []byte, p *packet.Parsed, side verdict.Side, now time.Time) (Claim, verdict.Reason) {
	k := keyOf(p, side)
	from := k.source()
	s := v.lock(from)
	defer s.mu.Unlock()
	return s.claim(frame, p, k, from, now)
}

// Settle applies the verdict on a first fragment to the rest of its datagram: [verdict.Passed],
// or why it is dropped. It returns the held fragments that are forwarded after the first, for
// the caller to release, or nil if there are none. Those that are dropped go to the ledger.
//
// No lock is held between [Validator.Claim] and Settle, so by then the datagram may have timed
// out, been evicted or been poisoned. The verdict still applies to the first fragment, as if
// all that had happened after it.
func (v *Validator) Settle(c Claim, why verdict.Reason) *Datagram {
	c.shard.lock(v.ledger)
	defer c.shard.mu.Unlock()
	return c.shard.settle(c.first, why)
}

func (s *shard) claim(frame []byte, p *packet.Parsed, k key, from source, now time.Time) (Claim, verdict.Reason) {
	d := s.find(k, from, now)
	if s.options.Begun != nil {
		d = s.findBegun(d, p, from, now)
	}
	if d.poisoned {
		return Claim{}, verdict.FragmentPoisoned
	}
	why := d.claim(p, s.options.MaxFragments)
	switch why {
	case verdict.Passed:
	case verdict.FragmentDuplicate:
		return Claim{}, why
	default:
		s.poison(d, why)
		return Claim{}, why
	}

	first := p.Fragment.Offset == 0
	waits := !first && !d.judged
	bytes := claimed(d.count) - claimed(d.count-1)
	if waits {
		bytes += frameCost(len(frame))
	}
	if s.makeRoom(bytes, 0) && s.waiting[k] != d {
		return Claim{}, verdict.FragmentEvicted
	}
	s.charge(d, bytes)
	switch {
	case waits:
		at, _ := d.search(p.Fragment.Offset)
		d.hold(at, frame, p)
		s.ledger.Held(d)
		return Claim{Waits: true}, verdict.Passed
	case first:
		d.pinned = true
		return Claim{first: d, shard: s}, verdict.Passed
	}
	why = d.verdict
	s.forgetComplete(d)
	return Claim{}, why
}

// settle records the verdict on the first fragment of a datagram. It returns the fragments that
// were held for it, if the verdict lets them pass.
func (s *shard) settle(d *Datagram, why verdict.Reason) *Datagram {
	d.pinned = false
	switch {
	case d.load == nil: // it was removed from the table
		d.Release()
		return nil
	case d.poisoned:
		return nil
	}
	d.judged, d.verdict = true, why
	var released *Datagram
	if len(d.fragments) > 0 {
		released = s.dismiss(d, why)
	}
	s.forgetComplete(d)
	return released
}

// dismiss releases the held fragments of a datagram by the verdict on the first: it returns
// them if they pass, and drops them otherwise.
func (s *shard) dismiss(d *Datagram, why verdict.Reason) *Datagram {
	waited := 0
	for i := range d.fragments {
		waited += frameCost(len(d.Frame(i)))
	}
	s.charge(d, -waited)
	frames := d.detach()
	if why != verdict.Passed {
		s.ledger.Dropped(frames, why)
		return nil
	}
	return frames
}

// forgetComplete removes a datagram whose fragments have all arrived from the table, and
// credits its source if they pass.
func (s *shard) forgetComplete(d *Datagram) {
	if !d.complete() {
		return
	}
	if d.verdict == verdict.Passed {
		s.credits.of(d.load.source).earn()
		s.ledger.Credited(d)
	}
	s.remove(d)
	d.Release()
}

// claim records a fragment, or returns why it has no place in the datagram. Only after
// [verdict.FragmentDuplicate] the datagram is still valid.
func (d *Datagram) claim(p *packet.Parsed, maxFragments int) verdict.Reason {
	why := d.contradiction(p)
	if why == verdict.Passed {
		why = d.claims.add(p.Fragment.Offset, p.Fragment.Offset+p.End-p.Fragment.Payload)
	}
	switch {
	case why != verdict.Passed:
		return why
	case d.tooLong(p):
		return verdict.FragmentTooLong
	case d.count == maxFragments:
		return verdict.FragmentTooMany
	case p.Fragment.Offset == 0 && !p.HoldsTransport():
		return verdict.FragmentTinyFirst
	}
	d.note(p)
	return verdict.Passed
}
