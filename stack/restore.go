package stack

import (
	"errors"
	"fmt"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Restore takes over a datagram that another table saved at a time of this table's clock.
// Restore it after those that began before it. The frames are copied, and from then on the
// ledger accounts for them. If there is not enough room, the table evicts datagrams as usual.
// lost is the number of these frames that were dropped before they were inserted.
func (r *Reassembler) Restore(d *Saved, saved, now time.Time) (lost int, err error) {
	return r.restore(d, saved, now, holdFragment)
}

// Restore does the same as [Reassembler.Restore], for a Validator.
func (v *Validator) Restore(d *Saved, saved, now time.Time) (lost int, err error) {
	return v.restore(d, saved, now, claimFragment)
}

// holdFragment finds the place of a fragment that a Reassembler held.
func holdFragment(d *Datagram, frame []byte, p *packet.Parsed) (at, bytes int, why verdict.Reason) {
	at, why = d.place(frame, p)
	if d.completes(p) {
		why = verdict.FragmentDisagreement // it would not be held
	}
	d.note(p)
	return at, frameCost(len(frame)), why
}

// claimFragment finds the place of a fragment that a Validator held.
func claimFragment(d *Datagram, frame []byte, p *packet.Parsed) (at, bytes int, why verdict.Reason) {
	if d.judged || p.Fragment.Offset == 0 {
		return 0, 0, verdict.FragmentDisagreement // it would not be held either
	}
	at, _ = d.search(p.Fragment.Offset)
	why = d.claim(p, d.count+1)
	return at, frameCost(len(frame)) + claimed(d.count) - claimed(d.count-1), why
}

// taker finds the place of a fragment in its datagram, and records it. It returns the memory
// that the fragment takes, or why it has no place.
type taker func(d *Datagram, frame []byte, p *packet.Parsed) (at, bytes int, why verdict.Reason)

func (i *intake) restore(d *Saved, saved, now time.Time, take taker) (lost int, err error) {
	k, err := d.Key.key()
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return 0, err
	}
	s := i.lock(k.source())
	defer s.mu.Unlock()
	if !d.More {
		if s.waiting[k] != nil {
			return 0, fmt.Errorf("%w: it appears twice", errNoDatagram)
		}
		s.restore(d, k, saved, now)
	}
	return s.restoreFrames(d, k, take)
}

// check checks saved state against what the table relies on.
func (r *Saved) check() error {
	known := r.Poisoned || r.Judged
	switch {
	case int(r.Why) >= verdict.Reasons, r.Poisoned && r.Judged, known && len(r.Frames) > 0:
		return errNoDatagram
	case min(r.Count, r.Have, r.Reached, r.End, r.Headers) < 0, max(r.Count, r.Have, r.Reached, r.End, r.Headers) > maxPacket:
		return fmt.Errorf("%w: fragments: %d, bytes: %d", errNoDatagram, r.Count, r.Have)
	case !r.Judged:
		return nil
	case r.End != 0 && (r.End < r.Reached || r.End == r.Have), !r.claimsFit():
		return fmt.Errorf("%w: fragments: %d, bytes: %d, claims: %d", errNoDatagram, r.Count, r.Have, len(r.Claims))
	}
	return nil
}

// claimsFit reports whether the claims match the number of fragments and of bytes. The last
// block may be incomplete.
func (r *Saved) claimsFit() bool {
	last, sum := 0, 0
	for _, c := range r.Claims {
		if c.Start < last || c.Start%8 != 0 || c.End <= c.Start || c.End > 1<<16 {
			return false
		}
		last, sum = c.End, sum+c.End-c.Start
	}
	if r.Blocks {
		return r.Count > maxClaims && sum-r.Have == last-r.Reached && last-r.Reached >= 0 && last-r.Reached < 8
	}
	return len(r.Claims) == r.Count && r.Count > 0 && r.Count <= maxClaims && sum == r.Have && last == r.Reached
}

// restore inserts a saved datagram into the table, without its frames.
func (s *shard) restore(r *Saved, k key, saved, now time.Time) {
	s.makeRoom(datagramCost, 1)
	d := s.begin(k, k.source(), now)
	// The deadlines of a family stay in order, even if the timeout has changed.
	if deadline := saved.Add(r.Left); deadline.Before(d.deadline) {
		d.deadline = deadline
	}
	if l := d.load; l.datagrams.first == d { // the first one of the source, which began r.Begun more after it
		l.begun += r.Begun
	} else {
		l.begun--
	}
	d.begun = d.load.begun - min(r.Begun, d.load.begun)
	d.poisoned, d.judged, d.verdict = r.Poisoned, r.Judged, r.Why
	if !r.Poisoned && !r.Judged {
		return
	}
	d.extent = extent{r.Count, r.Have, r.Reached, r.End, r.Headers}
	if r.Judged {
		d.restoreClaims(r)
		s.charge(d, claimed(d.count))
	}
}

func (d *Datagram) restoreClaims(r *Saved) {
	if r.Blocks {
		d.claims.toBlocks()
	}
	for _, c := range r.Claims {
		d.claims.add(c.Start, c.End)
	}
}

// restoreFrames inserts the frames of a datagram. It returns how many of them the datagram no
// longer has.
func (s *shard) restoreFrames(r *Saved, k key, take taker) (lost int, err error) {
	var p packet.Parsed
	for i, frame := range r.Frames {
		d := s.waiting[k]
		if d == nil || d.poisoned || d.count == s.options.MaxFragments {
			return len(r.Frames) - i, nil
		}
		if why := p.Decode(frame); len(frame) > 2*maxPacket || why != verdict.Passed || !p.Fragment.Present || keyOf(&p, k.side) != k {
			return 0, fmt.Errorf("%w: a frame of %d bytes is not one of its fragments", errNoDatagram, len(frame))
		}
		at, bytes, why := take(d, frame, &p)
		if why != verdict.Passed {
			return 0, fmt.Errorf("%w: %v", errNoDatagram, why)
		}
		s.charge(d, bytes)
		d.hold(at, frame, &p)
		s.ledger.Held(d)
		s.makeRoom(0, 0)
	}
	return 0, nil
}

// SetHash changes the key of the hash by which sources share an empty table, to that of another
// table whose credits and datagrams are to be restored. Call it before the table receives
// fragments, since callers cache the result of the hash.
func (t *Table) SetHash(key [2]uint64) error {
	if t.Usage().Datagrams > 0 {
		return errors.New("a table with incomplete datagrams cannot change its hash")
	}
	t.hash = keyedHash{key[0], key[1]}
	t.credits.hash = t.hash
	return nil
}

// RestoreCredits takes over the credits of another table with the same hash.
func (t *Table) RestoreCredits(saved []SavedCredit) {
	for _, c := range saved {
		if c.Slot < creditSlots {
			t.credits.slots[c.Slot].Store(min(c.Left, creditMost+creditEarned))
		}
	}
}
