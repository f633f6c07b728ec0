package stack

import (
	"math/bits"
	"slices"

	"fragwall/packet/verdict"
)

// claims records which bytes of a datagram's payload its fragments have claimed, in at most 1
// KiB. It is a list of the fragments' ranges or, if there are more than maxClaims of them, one
// bit for each 8 bytes. The list knows where fragments begin and end, and so can tell a
// duplicate from an overlap. The bits treat every fragment whose bytes were all claimed before
// as a duplicate. No honest sender reaches that state: with an MTU of 576 bytes, the largest
// datagram has 119 fragments.
type claims struct {
	list   []claim // in order, disjoint
	blocks *blocks // used instead of list if there are too many ranges
}

type claim struct{ start, end uint16 }

// blocks has a bit for each 8 bytes of payload.
type blocks [1 << 16 / 8 / 64]uint64

const (
	claimSize = 4 // bytes
	// fewClaims is the number of claims that each datagram has room for from the beginning.
	fewClaims = 8
	// maxClaims take as much memory as blocks.
	maxClaims = 256
)

// claimed returns the memory that n claims take in excess of the room that each datagram has
// from the beginning, in bytes.
func claimed(n int) int {
	if n <= fewClaims {
		return 0
	}
	return claimSize * min(maxClaims, 1<<bits.Len(uint(n-1)))
}

// add claims the bytes from start to end, or returns why they cannot be claimed. start is a
// multiple of 8. So is end, except at the end of the datagram.
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

// toBlocks converts the list to bits.
func (c *claims) toBlocks() {
	c.blocks = new(blocks)
	for _, r := range c.list {
		c.blocks.add(int(r.start)/8, (int(r.end)+7)/8)
	}
	c.list = nil
}

// cleared returns empty claims, with the room that every datagram has.
func (c *claims) cleared() claims {
	if cap(c.list) > fewClaims {
		return claims{}
	}
	return claims{list: c.list[:0]}
}

// add sets the bits from first to last, unless one is already set.
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

// each calls f for every word with bits from first to last, with the mask of those bits.
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
