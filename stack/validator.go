package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Validator is a table that keeps of a datagram which bytes its fragments
// have claimed, and the verdict on its first fragment, which covers the rest.
// Frames wait in it only until the first fragment came.
type Validator struct{ intake }

// NewValidator returns an empty one. [Table.Close] frees it.
func NewValidator(o Options) Validator {
	return Validator{intake{Table: newTable(o, false), ledger: o.Ledger}}
}

// With returns the same table for another goroutine, with a ledger of its own.
func (v *Validator) With(l Ledger) Validator {
	return Validator{intake{Table: v.Table, ledger: l}}
}

// Claim is the place that a fragment took in its datagram.
type Claim struct {
	// Waits is set where the first fragment is still to come: the frame was
	// copied, and the ledger accounts for it.
	Waits bool

	first *Datagram // of a first fragment; pinned until it is settled
	shard *shard
}

// First reports whether the fragment is the first of its datagram. Then the
// caller judges it, and calls [Validator.Settle] once.
func (c Claim) First() bool { return c.first != nil }

// Claim takes note of a fragment: the frame, what was decoded from it with
// p.Fragment.Present set, the side it came in by, and the time.
//
// It returns why the fragment was dropped, which may be the verdict on the
// first fragment, or [verdict.Passed]. Then the fragment waits, is to be judged
// as the first of its datagram, or goes on from the buffer that it came in.
//
// No byte of a datagram goes on twice: a fragment with the range of another is
// dropped alone, since there is nothing left to compare it with; one that
// covers a part of others poisons the datagram, as do all contradictions. A
// datagram of which all bytes came is forgotten, so that its identification
// can be used again. What comes afterwards begins anew, with a verdict of its
// own.
func (v *Validator) Claim(frame []byte, p *packet.Parsed, side verdict.Side, now time.Time) (Claim, verdict.Reason) {
	k := keyOf(p, side)
	from := k.source()
	s := v.lock(from)
	defer s.mu.Unlock()
	return s.claim(frame, p, k, from, now)
}

// Settle sets the verdict on a first fragment for the rest of its datagram:
// [verdict.Passed], or why it is dropped. It returns the fragments that waited
// and go on behind the first, for the caller to release; nil where there are
// none. Those that are dropped go to the ledger.
//
// No lock is held between [Validator.Claim] and Settle, so the datagram may have
// timed out, been evicted or been poisoned by then. The verdict still holds for
// the first fragment, as if all that had come after it.
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

// settle sets the verdict on the first fragment of a datagram, and returns those
// that waited for it, where it lets them pass.
func (s *shard) settle(d *Datagram, why verdict.Reason) *Datagram {
	d.pinned = false
	switch {
	case d.load == nil: // it left the table
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

// dismiss ends the waiting of a datagram's fragments by the verdict on the
// first: it returns them where they pass, and drops them otherwise.
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

// forgetComplete takes a datagram off the table whose fragments all came, to
// its source's credit where they pass.
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

// claim takes note of a fragment, or says why it has no place in the
// datagram. Only [verdict.FragmentDuplicate] leaves the datagram sound.
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
