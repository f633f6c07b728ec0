package filter

import (
	"cmp"
	"net/netip"
	"slices"
)

// Range is the values from Lo to Hi, inclusive.
type Range[T any] struct{ Lo, Hi T }

// Set is a set of numbers: sorted ranges that neither overlap nor touch. A nil Set means
// every value, an empty one none.
type Set[T ~uint8 | ~uint16] []Range[T]

// NewSet returns the set of all values in ranges, which may overlap. A range whose Lo is
// greater than its Hi is empty.
func NewSet[T ~uint8 | ~uint16](ranges ...Range[T]) Set[T] {
	return merge(ranges, cmp.Compare[T], func(v T) T { return v + 1 })
}

// Contains reports whether v is in the set.
func (s Set[T]) Contains(v T) bool {
	if s == nil {
		return true
	}
	for _, r := range s {
		if v <= r.Hi {
			return v >= r.Lo
		}
	}
	return false
}

// AddrSet is a set of addresses of both families: sorted ranges that neither overlap nor
// touch. A nil AddrSet means every address, an empty one none.
type AddrSet []Range[netip.Addr]

// NewAddrSet returns the set of all addresses in ranges, which may overlap. Both ends of
// a range belong to one family and have no zone.
func NewAddrSet(ranges ...Range[netip.Addr]) AddrSet {
	return merge(ranges, netip.Addr.Compare, netip.Addr.Next)
}

// PrefixRange returns the addresses of a prefix.
func PrefixRange(p netip.Prefix) Range[netip.Addr] {
	p = p.Masked()
	hi := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(hi)*8; bit++ {
		hi[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(hi)
	return Range[netip.Addr]{Lo: p.Addr(), Hi: last}
}

// Contains reports whether a is in the set.
func (s AddrSet) Contains(a netip.Addr) bool {
	if s == nil {
		return true
	}
	_, found := slices.BinarySearchFunc(s, a, func(r Range[netip.Addr], a netip.Addr) int {
		switch {
		case r.Hi.Less(a):
			return -1
		case a.Less(r.Lo):
			return 1
		}
		return 0
	})
	return found
}

// merge sorts ranges, removes empty ones, and joins those that overlap or touch. next
// returns the value after another one; after the last value, one that is not greater.
func merge[T any](ranges []Range[T], compare func(a, b T) int, next func(T) T) []Range[T] {
	sorted := append(make([]Range[T], 0, len(ranges)), ranges...) // not nil, which would mean every value
	slices.SortFunc(sorted, func(a, b Range[T]) int { return compare(a.Lo, b.Lo) })
	merged := sorted[:0] // never ahead of the ranges that are still to be read
	for _, r := range sorted {
		if compare(r.Lo, r.Hi) > 0 {
			continue
		}
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			if compare(r.Lo, last.Hi) <= 0 || compare(r.Lo, next(last.Hi)) == 0 {
				if compare(r.Hi, last.Hi) > 0 {
					last.Hi = r.Hi
				}
				continue
			}
		}
		merged = append(merged, r)
	}
	if len(merged) < len(sorted)/2 { // many ranges were joined: release the rest of the memory
		return append(make([]Range[T], 0, len(merged)), merged...)
	}
	return merged
}

// Complement returns all values that are not in the set, which must not be nil.
func (s Set[T]) Complement() Set[T] {
	rest := Set[T]{}
	lo := T(0)
	for _, r := range s {
		if lo < r.Lo {
			rest = append(rest, Range[T]{lo, r.Lo - 1})
		}
		if lo = r.Hi + 1; lo == 0 { // it was the last value
			return rest
		}
	}
	return append(rest, Range[T]{lo, ^T(0)})
}

// Without returns the values of the set, which must not be nil, that are not in the other
// one.
func (s Set[T]) Without(other Set[T]) Set[T] {
	return NewSet(append(s.Complement(), other...)...).Complement()
}

// Without returns the addresses of the set, which must not be nil, that are not in the
// other one.
func (s AddrSet) Without(other AddrSet) AddrSet {
	return NewAddrSet(append(s.Complement(), other...)...).Complement()
}

// allAddresses has the first and the last address of each family.
var allAddresses = AddrSet{
	PrefixRange(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
	PrefixRange(netip.PrefixFrom(netip.IPv6Unspecified(), 0)),
}

// Complement returns all addresses of both families that are not in the set, which must
// not be nil.
func (s AddrSet) Complement() AddrSet {
	rest := AddrSet{}
	for _, family := range allAddresses {
		lo := family.Lo
		for _, r := range s {
			if r.Lo.BitLen() != lo.BitLen() {
				continue
			}
			if lo.Less(r.Lo) {
				rest = append(rest, Range[netip.Addr]{lo, r.Lo.Prev()})
			}
			if lo = r.Hi.Next(); !lo.IsValid() {
				break
			}
		}
		if lo.IsValid() {
			rest = append(rest, Range[netip.Addr]{lo, family.Hi})
		}
	}
	return rest
}
