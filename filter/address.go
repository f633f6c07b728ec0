package filter

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// point is an address of either family as numbers, which compare faster than
// [netip.Addr]. An IPv4 address is the upper half of hi.
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

// compare sorts IPv4 before IPv6, as [netip.Addr.Compare] does.
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

// after returns the next address. The last IPv4 address is followed by ::.
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

// addressDomain is all addresses. Each family begins an interval.
var addressDomain = domain[point]{
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

// address returns the point as an address.
func (p point) address() netip.Addr {
	if !p.v6 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(p.hi>>32))))
	}
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.hi), p.lo)))
}

// common returns the length of the common prefix of two points, in bits.
func (p point) common(q point) int {
	if p.hi != q.hi {
		return bits.LeadingZeros64(p.hi ^ q.hi)
	}
	return 64 + bits.LeadingZeros64(p.lo^q.lo)
}

// masked returns the first point of the prefix with the first n bits of p.
func (p point) masked(n int) point {
	if n < 64 {
		return point{p.v6, p.hi &^ (math.MaxUint64 >> n), 0}
	}
	return point{p.v6, p.hi, p.lo &^ (math.MaxUint64 >> (n - 64))}
}

// addressIndex finds the class of an address: longest prefix match finds a few intervals,
// and binary search finds one of them.
//
// Prefixes alone would also do, but a range between two addresses, or the complement of a
// set, is dozens of prefixes, and a policy with 100,000 such ranges would need millions.
// So a prefix is divided only while more than [spanSize] intervals intersect it, and
// there are never more prefixes than intervals. BenchmarkAddressIndex compares it with
// either method alone.
type addressIndex struct {
	prefixes bart.Fast[span]
	ipv4     []interval4
	ipv6     []interval
}

// span is n consecutive intervals of one family, starting with number from. If n is 0,
// from is the class of the whole prefix.
type span struct{ from, n uint32 }

// interval is the addresses from one point up to the next interval.
type interval struct {
	hi, lo uint64 // of its first point
	class  uint32
}

// interval4 is an interval of IPv4 in a third of the memory, because lookups wait for
// memory: the upper half is the first address, the lower half the class.
type interval4 uint64

// spanSize is the number of intervals that are searched without a further prefix. Smaller
// values are slower with 100,000 hosts, because each prefix is another memory access.
const spanSize = 16

func newAddressIndex(p *partition[point]) *addressIndex {
	all := make([]interval, len(p.starts))
	for i, start := range p.starts {
		all[i] = interval{start.hi, start.lo, p.class[i]}
	}
	ipv6, _ := slices.BinarySearchFunc(p.starts, point{v6: true}, point.compare)
	x := &addressIndex{
		ipv4: make([]interval4, 0, ipv6*5/4),
		ipv6: make([]interval, 0, (len(all)-ipv6)*5/4),
	}
	x.cover(point{}, 0, all[:ipv6])
	x.cover(point{v6: true}, 0, all[ipv6:])
	x.ipv4, x.ipv6 = slices.Clip(x.ipv4), slices.Clip(x.ipv6)
	return x
}

// cover adds the prefix of length n that begins at a point, and the prefixes inside it.
// list has the intervals that intersect it.
func (x *addressIndex) cover(at point, n int, list []interval) {
	if len(list) <= spanSize {
		x.insert(at, n, list)
		return
	}
	// All intervals except the first begin in the same longer prefix, if there is one.
	// Outside it are only the first and the last.
	first, last := point{at.v6, list[1].hi, list[1].lo}, point{at.v6, list[len(list)-1].hi, list[len(list)-1].lo}
	if common := first.common(last); common > n {
		x.insert(at, n, []interval{list[0], {first.hi, first.lo, list[len(list)-1].class}})
		at, n = first.masked(common), common
		if first == at {
			list = list[1:]
		}
	}
	middle := last.masked(n + 1)
	i, found := slices.BinarySearchFunc(list, middle, func(v interval, p point) int {
		return point{p.v6, v.hi, v.lo}.compare(p)
	})
	x.cover(at, n+1, list[:i])
	if !found {
		i-- // it extends beyond the middle
	}
	x.cover(middle, n+1, list[i:])
}

func (x *addressIndex) insert(at point, n int, list []interval) {
	s := span{n: uint32(len(list))}
	switch {
	case len(list) == 1:
		s = span{from: list[0].class}
	case at.v6:
		s.from = uint32(len(x.ipv6))
		x.ipv6 = append(x.ipv6, list...)
	default:
		s.from = uint32(len(x.ipv4))
		for _, v := range list {
			x.ipv4 = append(x.ipv4, interval4(v.hi|uint64(v.class)))
		}
	}
	x.prefixes.Insert(netip.PrefixFrom(at.address(), n), s)
}

// class returns the class of an address.
func (x *addressIndex) class(a netip.Addr) uint32 {
	s, _ := x.prefixes.Lookup(a) // every address has a prefix
	if s.n == 0 {
		return s.from
	}
	p := pointOf(a)
	lo, hi := s.from, s.from+s.n // the first one begins at the prefix or before it
	if !p.v6 {
		last := interval4(p.hi | math.MaxUint32)
		for hi-lo > 1 {
			if middle := (lo + hi) / 2; x.ipv4[middle] <= last {
				lo = middle
			} else {
				hi = middle
			}
		}
		return uint32(x.ipv4[lo])
	}
	for hi-lo > 1 {
		middle := (lo + hi) / 2
		if at := &x.ipv6[middle]; at.hi < p.hi || at.hi == p.hi && at.lo <= p.lo {
			lo = middle
		} else {
			hi = middle
		}
	}
	return x.ipv6[lo].class
}
