package filter_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fragwall/filter"
)

// TestSetAgainstList compares a set with its list of ranges, for every value.
func TestSetAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ranges := rapid.SliceOf(rapid.Custom(func(t *rapid.T) filter.Range[uint8] {
			return filter.Range[uint8]{Lo: rapid.Uint8().Draw(t, "lo"), Hi: rapid.Uint8().Draw(t, "hi")}
		})).Draw(t, "ranges")
		s := filter.NewSet(ranges...)
		for v := range 256 {
			want := slices.ContainsFunc(ranges, func(r filter.Range[uint8]) bool { return int(r.Lo) <= v && v <= int(r.Hi) })
			if s.Contains(uint8(v)) != want {
				t.Fatalf("%d in %v, merged to %v: want %v", v, ranges, s, want)
			}
		}
		for i := 1; i < len(s); i++ {
			if int(s[i].Lo) <= int(s[i-1].Hi)+1 {
				t.Fatalf("%v: ranges %d and %d are not disjoint", s, i-1, i)
			}
		}
	})
}

// TestAddrSetAgainstPrefixes compares a set of prefixes of both families with the
// prefixes, for addresses inside and next to them.
func TestAddrSetAgainstPrefixes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOf(rapid.Custom(drawPrefix)).Draw(t, "prefixes")
		var ranges []filter.Range[netip.Addr]
		for _, p := range prefixes {
			ranges = append(ranges, filter.PrefixRange(p))
		}
		s := filter.NewAddrSet(ranges...)
		probe := func(a netip.Addr) {
			want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			if a.IsValid() && s.Contains(a) != want {
				t.Fatalf("%v in %v: want %v", a, prefixes, want)
			}
		}
		for _, r := range ranges {
			for _, a := range []netip.Addr{r.Lo, r.Hi, r.Lo.Prev(), r.Hi.Next()} {
				probe(a)
			}
		}
		probe(drawPrefix(t).Addr())
	})
}

func drawPrefix(t *rapid.T) netip.Prefix {
	n := 4
	if rapid.Bool().Draw(t, "ipv6") {
		n = 16
	}
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "address"))
	return netip.PrefixFrom(a, rapid.IntRange(0, n*8).Draw(t, "bits"))
}

func TestNilAndEmptySets(t *testing.T) {
	if !filter.Set[uint8](nil).Contains(7) || filter.NewSet[uint8]().Contains(7) {
		t.Error("the nil set must match every value, the empty one none")
	}
	a := netip.MustParseAddr("::1")
	if !filter.AddrSet(nil).Contains(a) || filter.NewAddrSet().Contains(a) {
		t.Error("the nil set must match every address, the empty one none")
	}
}

// TestSetMemory checks that a set keeps no memory for ranges that were joined.
func TestSetMemory(t *testing.T) {
	ports := make([]filter.Range[uint16], 65536)
	for i := range ports {
		ports[i] = filter.Range[uint16]{Lo: uint16(i), Hi: uint16(i)}
	}
	if set := filter.NewSet(ports...); len(set) != 1 || cap(set) > 2 {
		t.Errorf("%d ranges of %d", len(set), cap(set))
	}
	if set := filter.NewSet(ports[1:1]...); set == nil || len(set) != 0 {
		t.Errorf("no ranges give %v", set)
	}
}
