package stack

import (
	"hash/maphash"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Shedding decides which fragments to drop before they cost anything, for a caller that
// receives more than it can give to the table. It drops all fragments of a datagram or none.
// Only one goroutine may use it.
//
// Fragments of known sources are taken in. Of the others, a turn takes in only a few, which
// cost little; these let a new sender earn credit. This check takes a tenth of the time of
// taking in a fragment.
type Shedding struct {
	table      *Table
	seed       maphash.Seed
	decisions  [decisionSlots]decision // on datagrams, by hash
	uncredited int                     // fragments of unknown sources that this turn took in
	until      time.Time               // when all decisions have lapsed
	from       source                  // of the last fragment that spent credit
	credit     *credit                 // of that source; nil before the first
}

// decision is a decision on a datagram.
type decision struct {
	tag uint32 // of its hash; the lowest bit is set if the datagram is shed
	at  uint32 // time of the decision, in ms
}

const (
	decisionSlots = 1 << 14

	// decisionTime is how long a decision is valid, in ms: longer than the fragments of a
	// datagram take to arrive, and shorter than a fast sender takes to reuse an identification.
	decisionTime = 250

	// maxUncredited is the number of fragments of unknown sources that a turn takes in before
	// it takes in no further datagram of them: enough for a datagram of the largest size in
	// fragments of 1,480 bytes, and less than any batch of a caller that is behind. The
	// datagrams already begun may continue up to twice as many.
	maxUncredited = 48
)

// NewShedding returns a Shedding that has dropped nothing yet.
func (t *Table) NewShedding() *Shedding {
	return &Shedding{table: t, seed: maphash.MakeSeed()}
}

// Turn begins the next turn: a batch of the caller's.
func (s *Shedding) Turn() { s.uncredited = 0 }

// Sheds reports whether to drop a fragment, given its decoded headers, the side that it arrived
// on, and the time. If the caller is not behind, this is only the case for the rest of a
// datagram that was already shed.
func (s *Shedding) Sheds(p *packet.Parsed, side verdict.Side, behind bool, now time.Time) bool {
	if !behind && !now.Before(s.until) {
		return false
	}
	k := keyOf(p, side)
	hash := maphash.Comparable(s.seed, k)
	d := &s.decisions[hash%decisionSlots]
	tag, at := uint32(hash>>32)&^1, uint32(now.UnixMilli())
	holds := at-d.at < decisionTime
	known := holds && d.tag&^1 == tag
	if known && d.tag&1 != 0 {
		return true
	}
	if !behind {
		return false
	}
	most := maxUncredited
	if known {
		most = 2 * maxUncredited
	}
	shed := false
	if !s.spend(k.source()) {
		if shed = s.uncredited >= most; !shed {
			s.uncredited++
		}
	}
	switch {
	case shed && (known || !holds || d.tag&1 != 0): // another datagram that was taken in keeps its slot
		*d = decision{tag | 1, at}
		s.until = now.Add(decisionTime * time.Millisecond)
	case !shed && !known:
		*d = decision{tag, at}
	}
	return shed
}

// spend takes the credit of a source for one fragment. It returns false if there is none.
func (s *Shedding) spend(from source) bool {
	if s.credit == nil || s.from != from {
		s.from, s.credit = from, s.table.credits.of(from)
	}
	return s.credit.spend()
}
