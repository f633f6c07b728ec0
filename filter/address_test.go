package filter_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"fragwall/filter"
)

// TestAddressIndexAgainstSet compares the index with its set, at the ends of all ranges
// and next to them: neighbouring addresses, networks, ranges of any size, and clusters of
// addresses that differ in few bits.
func TestAddressIndexAgainstSet(t *testing.T) {
	for seed := range uint64(50) {
		g := rand.New(rand.NewPCG(seed, 5))
		ranges := []filter.Range[netip.Addr]{}
		for range 1 << g.IntN(9) {
			switch g.IntN(5) {
			case 0:
				ranges = append(ranges, span4(g)...)
			case 1:
				ranges = append(ranges, network(g, 1+g.IntN(32))...)
			case 2:
				ranges = append(ranges, network6(g, 16+g.IntN(113))...)
			case 3:
				ranges = append(ranges, span6(g)...)
			default:
				a := network6(g, 128)[0].Lo.As16()
				for range 20 {
					a[8+g.IntN(8)] ^= 1 << g.IntN(8)
					ranges = append(ranges, filter.PrefixRange(netip.PrefixFrom(netip.AddrFrom16(a), 128)))
				}
			}
		}
		if seed%2 == 0 { // without those that join everything
			ranges = filter.NewAddrSet(ranges...).Without(filter.NewAddrSet(span4(g)[0], span6(g)[0]))
		}
		s := filter.NewAddrSet(ranges...).Without(filter.NewAddrSet(filter.PrefixRange(netip.MustParsePrefix("0.0.0.0/32"))))
		contains := filter.IndexOf(s)
		for _, r := range s {
			for _, a := range []netip.Addr{r.Lo, r.Hi, r.Lo.Prev(), r.Hi.Next()} {
				if a.IsValid() && contains(a) != s.Contains(a) {
					t.Fatalf("seed %d, %d ranges: %v: want %v", seed, len(s), a, s.Contains(a))
				}
			}
		}
		for range 200 {
			for _, a := range []netip.Addr{host(g)[0].Lo, network6(g, 128)[0].Lo} {
				if contains(a) != s.Contains(a) {
					t.Fatalf("seed %d, %d ranges: %v: want %v", seed, len(s), a, s.Contains(a))
				}
			}
		}
	}
}
