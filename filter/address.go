package filter

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
)

// point is an address of either family as numbers, which compare faster than
// [netip.Addr]: an IPv4 address is the upper half of hi.
type point struct {
	v6     bool
	hi, lo uint64
}

func pointOf(a netip.Addr) point {
	if a.Is4() {
		b := a.As4()
		return point{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return point{v6: true, hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:])}
}

// compare orders IPv4 before IPv6, as [netip.Addr.Compare] does.
func (p point) compare(q point) int {
	switch {
	case p.v6 != q.v6 && q.v6:
		return -1
	case p.v6 != q.v6:
		return 1
	case p.hi != q.hi:
		return cmp.Compare(p.hi, q.hi)
	}
	return cmp.Compare(p.lo, q.lo)
}

// after returns the next address: behind the last of IPv4 comes ::.
func (p point) after() (point, bool) {
	switch {
	case !p.v6 && p.hi>>32 == math.MaxUint32:
		return point{v6: true}, true
	case !p.v6:
		return point{hi: p.hi + 1<<32}, true
	case p.lo == math.MaxUint64 && p.hi == math.MaxUint64:
		return point{}, false
	case p.lo == math.MaxUint64:
		return point{v6: true, hi: p.hi + 1}, true
	}
	return point{v6: true, hi: p.hi, lo: p.lo + 1}, true
}

func pointKey(b []byte, r Range[point]) []byte {
	for _, p := range []point{r.Lo, r.Hi} {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, p.hi), p.lo)
		b = append(b, map[bool]byte{false: 4, true: 6}[p.v6])
	}
	return b
}

// addressLine is all addresses, with the families in intervals of their own.
var addressLine = line[point]{
	compare: point.compare, after: point.after, key: pointKey, origin: []point{{}, {v6: true}},
}

func points(s AddrSet) []Range[point] {
	if s == nil {
		return nil
	}
	ranges := make([]Range[point], len(s))
	for i, r := range s {
		ranges[i] = Range[point]{Lo: pointOf(r.Lo), Hi: pointOf(r.Hi)}
	}
	return ranges
}

// addressIndex finds the class of an address.
//
// It is a radix tree over where the intervals begin, with a byte a level,
// bytes that all have in common skipped, and a sorted list where few are
// left. Among 100,000 hosts (BenchmarkAddressIndex) it takes 27 ns, bart's
// longest prefix match 33 ns and a binary search 280 ns; but to bart a range,
// or all but a set, is dozens of prefixes.
type addressIndex struct{ ipv4, ipv6 radix }

func newAddressIndex(p *partition[point]) *addressIndex {
	ipv6, _ := slices.BinarySearchFunc(p.starts, point{v6: true}, point.compare)
	return &addressIndex{ipv4: newRadix(p, 0, ipv6), ipv6: newRadix(p, ipv6, len(p.starts))}
}

// class returns the class of an address.
func (x *addressIndex) class(a netip.Addr) uint32 {
	if a.Is4() {
		b := a.As4()
		return x.ipv4.class(uint64(binary.BigEndian.Uint32(b[:]))<<32, 0)
	}
	b := a.As16()
	return x.ipv6.class(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

// radix is the index of one family.
type radix struct {
	root    slot
	entries []radixEntry // in order; the first is at 0
	nodes   []radixNode
	slots   []slot // 256 for each node
}

// radixEntry is an interval: where it begins, and its class.
type radixEntry struct {
	hi, lo uint64
	class  uint32
}

// slot is a part of the entries, n of them from from on; or, where n is
// [isNode], node number from.
type slot struct{ from, n uint32 }

const isNode = math.MaxUint32

// radixNode tells entries apart by one of their bytes, those in front of which
// are the same in all of them.
type radixNode struct {
	hi, lo         uint64 // the bytes in front
	maskHi, maskLo uint64
	from, to       uint32 // its entries
	shift          uint8  // of the byte in its word
	low            bool   // the word is lo
}

// radixLeaf is how many entries are searched without a further level.
const radixLeaf = 12

func newRadix(p *partition[point], from, to int) radix {
	x := radix{entries: make([]radixEntry, to-from)}
	for i := range x.entries {
		at := p.starts[from+i]
		x.entries[i] = radixEntry{at.hi, at.lo, p.class[from+i]}
	}
	x.root = x.build(0, len(x.entries))
	return x
}

// build returns the slot of some entries.
func (x *radix) build(from, to int) slot {
	if to-from <= radixLeaf {
		return slot{uint32(from), uint32(to - from)}
	}
	first, last := x.entries[from], x.entries[to-1]
	depth := 0 // of the first byte that is not the same in all
	for radixByte(first.hi, first.lo, depth) == radixByte(last.hi, last.lo, depth) {
		depth++
	}
	n := radixNode{from: uint32(from), to: uint32(to), shift: uint8(56 - depth%8*8), low: depth >= 8}
	if depth < 8 {
		n.maskHi = ^(math.MaxUint64 >> (depth * 8))
	} else {
		n.maskHi, n.maskLo = math.MaxUint64, ^(math.MaxUint64 >> ((depth - 8) * 8))
	}
	n.hi, n.lo = first.hi&n.maskHi, first.lo&n.maskLo
	number := len(x.nodes)
	x.nodes = append(x.nodes, n)
	x.slots = append(x.slots, make([]slot, 256)...)
	for b, at := 0, from; b < 256; b++ {
		end := at
		for end < to && radixByte(x.entries[end].hi, x.entries[end].lo, depth) == byte(b) {
			end++
		}
		s := x.build(at, end)
		x.slots[number*256+b] = s
		at = end
	}
	return slot{uint32(number), isNode}
}

func radixByte(hi, lo uint64, depth int) byte {
	if depth < 8 {
		return byte(hi >> (56 - depth*8))
	}
	return byte(lo >> (120 - depth*8))
}

// class returns the class of the last interval that begins at or before an
// address.
func (x *radix) class(hi, lo uint64) uint32 {
	s := x.root
	for s.n == isNode {
		n := &x.nodes[s.from]
		if h, l := hi&n.maskHi, lo&n.maskLo; h != n.hi || l != n.lo {
			if h < n.hi || h == n.hi && l < n.lo {
				return x.entries[n.from-1].class
			}
			return x.entries[n.to-1].class
		}
		word := hi
		if n.low {
			word = lo
		}
		s = x.slots[uint64(s.from)*256+word>>n.shift&0xff]
	}
	from, n := s.from, s.n
	for n > 0 {
		half := n / 2
		e := &x.entries[from+half]
		if hi > e.hi || hi == e.hi && lo >= e.lo {
			from += half + 1
			n -= half + 1
		} else {
			n = half
		}
	}
	return x.entries[from-1].class
}
