package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Validator is a table that keeps of a datagram which bytes its fragments
// have claimed, and the verdict on its first fragment, which covers the rest.
// Frames wait in it only until the first fragment came.
type Validator struct{ *Table }

// NewValidator returns an empty one. [Table.Close] frees it.
func NewValidator(o Options) Validator {
	return Validator{newTable(o, false)}
}

// Passage is what becomes of a fragment that is not dropped.
type Passage struct {
	// Waits: the first fragment is still to come. The frame was copied, and the
	// ledger accounts for it.
	Waits bool
	// Released are the frames that waited for this one, and go on behind it, for
	// the caller to release; nil where there are none.
	Released *Datagram
}

// Judge decides on a first fragment. It is called with a part of the table
// locked, so it must neither block nor call the table.
type Judge func(first *packet.Parsed) verdict.Reason

// Add takes note of a fragment: the frame, what was decoded from it with
// p.Fragment.Present set, the side it came in by, the time, and what decides
// on it if it is the first of its datagram.
//
// It returns why the fragment was dropped, or [verdict.Passed] and whether it
// waits or goes on, from the very buffer it came in.
//
// No byte of a datagram goes on twice: a fragment with the range of another is
// dropped alone, since there is nothing left to compare it with; one that
// covers a part of others poisons the datagram, as do all contradictions. A
// datagram of which all bytes came is forgotten, so that its identification
// can be used again. What comes afterwards begins anew, with a verdict of its
// own.
func (v Validator) Add(frame []byte, p *packet.Parsed, side verdict.Side, now time.Time, judge Judge) (Passage, verdict.Reason) {
	k := keyOf(p, side)
	from := k.source()
	return v.shard(from).validate(frame, p, k, from, now, judge)
}

func (s *shard) validate(frame []byte, p *packet.Parsed, k key, from source, now time.Time, judge Judge) (Passage, verdict.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.find(k, from, now)
	if d.poisoned {
		return Passage{}, verdict.FragmentPoisoned
	}
	why := d.claim(p, s.options.MaxFragments)
	switch why {
	case verdict.Passed:
	case verdict.FragmentDuplicate:
		return Passage{}, why
	default:
		s.poison(d, why)
		return Passage{}, why
	}

	first := p.Fragment.Offset == 0
	waits := !first && !d.judged
	bytes := claimed(d.count) - claimed(d.count-1)
	if waits {
		bytes += frameCost(len(frame))
	}
	if s.makeRoom(bytes, 0); s.waiting[k] != d {
		return Passage{}, verdict.FragmentEvicted
	}
	s.charge(d, bytes)
	if waits {
		at, _ := d.search(p.Fragment.Offset)
		d.hold(at, frame, p)
		s.options.Ledger.Held(d)
		return Passage{Waits: true}, verdict.Passed
	}
	var passage Passage
	if first {
		passage.Released = s.decide(d, judge(p))
	}
	why = d.verdict
	if d.complete() {
		if why == verdict.Passed {
			s.credits.earn(from)
		}
		s.remove(d)
		d.Release()
	}
	return passage, why
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

// decide puts the verdict on the first fragment down for all others. It
// returns those that waited, where the verdict lets them pass; nil where there
// are none.
func (s *shard) decide(d *Datagram, why verdict.Reason) *Datagram {
	d.judged, d.verdict = true, why
	waited := 0
	for i := range d.fragments {
		waited += frameCost(len(d.Frame(i)))
	}
	if waited == 0 {
		return nil
	}
	s.charge(d, -waited)
	if why != verdict.Passed {
		s.options.Ledger.Dropped(d, why)
		d.releaseFrames()
		return nil
	}
	released := datagrams.Get().(*Datagram)
	released.key = d.key
	released.fragments, d.fragments = d.fragments, released.fragments
	return released
}
