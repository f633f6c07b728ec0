package stack

import (
	"hash/maphash"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Shedding decides, for a caller that gets more fragments than it can give to the
// table, which to drop before they cost anything: all of a datagram or none. It
// belongs to one goroutine.
//
// Fragments of sources with credit are taken in. Of the others a turn takes in only
// so many as cost little; a new sender can earn credit by these. To look at a
// fragment like this takes a tenth of what it takes to take it in.
type Shedding struct {
	table      *Table
	seed       maphash.Seed
	decisions  [decisionSlots]decision // on datagrams, by hash
	uncredited int                     // fragments of sources without credit that this turn took in
	until      time.Time               // from when on no decision holds
	from       source                  // of the latest fragment that spent credit
	credit     *credit                 // of that source; nil before the first
}

// decision is one on a datagram.
type decision struct {
	tag uint32 // of its hash, and in the lowest bit whether it is shed
	at  uint32 // when it was made, in ms
}

const (
	decisionSlots = 1 << 14

	// decisionTime is how long a decision holds, in ms: longer than the fragments of
	// a datagram take to arrive, and shorter than a fast sender takes to come back to
	// an identification.
	decisionTime = 250

	// maxUncredited is how many fragments of sources without credit a turn takes in
	// before it takes in no further datagram of theirs: enough for one of the largest
	// size in fragments of 1,480 bytes, and less than any batch of a caller that is
	// behind. Those that it began may go on up to twice as many.
	maxUncredited = 48
)

// NewShedding returns one that has dropped nothing so far.
func (t *Table) NewShedding() *Shedding {
	return &Shedding{table: t, seed: maphash.MakeSeed()}
}

// Turn begins the next turn, which is a batch of the caller's.
func (s *Shedding) Turn() { s.uncredited = 0 }

// Sheds reports whether to drop a fragment, by what was decoded of it, the side that
// it came in by, and the time. Where the caller is not behind, that is so only of the
// rest of a datagram of which others were dropped.
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
	case shed && (known || !holds || d.tag&1 != 0): // another that was taken in keeps its place
		*d = decision{tag | 1, at}
		s.until = now.Add(decisionTime * time.Millisecond)
	case !shed && !known:
		*d = decision{tag, at}
	}
	return shed
}

// spend takes the credit of a source for a fragment; it reports false where there is
// none.
func (s *Shedding) spend(from source) bool {
	if s.credit == nil || s.from != from {
		s.from, s.credit = from, s.table.credits.of(from)
	}
	return s.credit.spend()
}
