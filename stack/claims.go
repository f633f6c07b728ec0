package stack

import (
	"math/bits"
	"slices"

	"fragwall/packet/verdict"
)

// claims is which bytes of a datagram's payload its fragments have claimed,
// in at most 1 KiB: as a list of the fragments' ranges, and, where those are
// more than maxClaims, as one bit for each 8 bytes. As a list it knows where
// fragments begin and end, so that it tells a duplicate from an overlap; as
// bits it takes every fragment whose bytes were all claimed before for a
// duplicate. No honest sender comes there: with an MTU of 576 bytes, the
// largest datagram has 119 fragments.
type claims struct {
	list   []claim // in order, apart from one another
	blocks *blocks // instead, where there are too many
}

type claim struct{ start, end uint16 }

// blocks has a bit for each 8 bytes of payload.
type blocks [1 << 16 / 8 / 64]uint64

const (
	claimSize = 4 // bytes
	// fewClaims are what a datagram has room for from the beginning.
	fewClaims = 8
	// maxClaims take as much memory as blocks.
	maxClaims = 256
)

// claimed returns what n claims take beyond those that a datagram has room for
// from the beginning, in bytes.
func claimed(n int) int {
	if n <= fewClaims {
		return 0
	}
	return claimSize * min(maxClaims, 1<<bits.Len(uint(n-1)))
}

// add claims the bytes from start to end, or says why they can't be claimed.
// start is a multiple of 8, and end as well but for the end of the datagram.
func (c *claims) add(start, end int) verdict.Reason {
	if c.blocks == nil && len(c.list) == maxClaims {
		c.toBlocks()
	}
	if c.blocks != nil {
		return c.blocks.add(start/8, (end+7)/8)
	}
	i, found := slices.BinarySearchFunc(c.list, start, func(c claim, start int) int { return int(c.start) - start })
	switch {
	case found && int(c.list[i].end) == end:
		return verdict.FragmentDuplicate
	case i > 0 && int(c.list[i-1].end) > start, i < len(c.list) && int(c.list[i].start) < end:
		return verdict.FragmentOverlap
	}
	if n := len(c.list); n == cap(c.list) {
		c.list = slices.Grow(c.list, max(fewClaims, n))
	}
	c.list = slices.Insert(c.list, i, claim{uint16(start), uint16(end)})
	return verdict.Passed
}

// toBlocks turns the list into bits.
func (c *claims) toBlocks() {
	c.blocks = new(blocks)
	for _, r := range c.list {
		c.blocks.add(int(r.start)/8, (int(r.end)+7)/8)
	}
	c.list = nil
}

// cleared returns no claims, with the room that every datagram has.
func (c *claims) cleared() claims {
	if cap(c.list) > fewClaims {
		return claims{}
	}
	return claims{list: c.list[:0]}
}

// add sets the bits from first up to last, unless one is set already.
func (b *blocks) add(first, last int) verdict.Reason {
	taken := 0
	b.each(first, last, func(word *uint64, mask uint64) { taken += bits.OnesCount64(*word & mask) })
	switch taken {
	case 0:
		b.each(first, last, func(word *uint64, mask uint64) { *word |= mask })
		return verdict.Passed
	case last - first:
		return verdict.FragmentDuplicate
	}
	return verdict.FragmentOverlap
}

// each calls f for every word with bits from first up to last, and the mask
// of those bits.
func (b *blocks) each(first, last int, f func(word *uint64, mask uint64)) {
	for w := first / 64; w*64 < last; w++ {
		mask := ^uint64(0)
		if w*64 < first {
			mask <<= first % 64
		}
		if left := last - w*64; left < 64 {
			mask &= 1<<left - 1
		}
		f(&b[w], mask)
	}
}
