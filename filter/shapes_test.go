package filter_test

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Other data structures that find the first matching rule, small but complete. The tree is
// compared with them, and they serve as further oracles.

// bitVectors has, for each field and each interval in which the sets of the rules do not
// change, a bit vector of the rules that match. The first bit that is set in the vectors of all
// fields is the first matching rule.
type bitVectors struct {
	policy   *filter.Policy
	src, dst vectors[netip.Addr]
	dstPort  vectors[uint16]
	protocol vectors[uint8]
}

type vectors[T any] struct {
	compare func(a, b T) int
	starts  []T
	rules   [][]uint64 // by interval
}

// newVectors makes the vectors of the rules' sets. all is the range of every value.
func newVectors[T any](sets [][]filter.Range[T], all []filter.Range[T], compare func(a, b T) int, next func(T) T) vectors[T] {
	v := vectors[T]{compare: compare}
	for _, r := range all {
		v.starts = append(v.starts, r.Lo)
	}
	for _, set := range sets {
		for _, r := range set {
			v.starts = append(v.starts, r.Lo)
			if after := next(r.Hi); compare(after, r.Hi) > 0 {
				v.starts = append(v.starts, after)
			}
		}
	}
	slices.SortFunc(v.starts, compare)
	v.starts = slices.CompactFunc(v.starts, func(a, b T) bool { return compare(a, b) == 0 })
	words := (len(sets) + 63) / 64
	v.rules = make([][]uint64, len(v.starts))
	for i := range v.rules {
		v.rules[i] = make([]uint64, words)
	}
	for rule, set := range sets {
		if set == nil {
			set = all
		}
		for _, r := range set {
			from, _ := slices.BinarySearchFunc(v.starts, r.Lo, compare)
			for i := from; i < len(v.starts) && compare(v.starts[i], r.Hi) <= 0; i++ {
				v.rules[i][rule/64] |= 1 << (rule % 64)
			}
		}
	}
	return v
}

func (v *vectors[T]) at(value T) []uint64 {
	i, found := slices.BinarySearchFunc(v.starts, value, v.compare)
	if !found {
		i--
	}
	return v.rules[i]
}

func newBitVectors(p *filter.Policy) *bitVectors {
	var src, dst [][]filter.Range[netip.Addr]
	var ports [][]filter.Range[uint16]
	var protocols [][]filter.Range[uint8]
	for _, r := range p.Rules {
		src, dst = append(src, r.Src), append(dst, r.Dst)
		ports, protocols = append(ports, r.DstPorts), append(protocols, r.Protocols)
	}
	next := func(a netip.Addr) netip.Addr {
		if a == everyAddress[0].Hi {
			return everyAddress[1].Lo
		}
		return a.Next()
	}
	return &bitVectors{p,
		newVectors(src, everyAddress, netip.Addr.Compare, next), newVectors(dst, everyAddress, netip.Addr.Compare, next),
		newVectors(ports, []filter.Range[uint16]{{Lo: 0, Hi: 0xffff}}, cmp.Compare[uint16], func(n uint16) uint16 { return n + 1 }),
		newVectors(protocols, []filter.Range[uint8]{{Lo: 0, Hi: 0xff}}, cmp.Compare[uint8], func(n uint8) uint8 { return n + 1 }),
	}
}

var everyAddress = filter.NewAddrSet(
	filter.PrefixRange(netip.MustParsePrefix("0.0.0.0/0")), filter.PrefixRange(netip.MustParsePrefix("::/0")))

// first returns the number of the first rule that matches, or -1.
func (b *bitVectors) first(d *packet.Parsed) int {
	src, dst := b.src.at(d.Src), b.dst.at(d.Dst)
	port, protocol := b.dstPort.at(d.DstPort), b.protocol.at(d.Protocol)
	for i := range src {
		for w := src[i] & dst[i] & port[i] & protocol[i]; w != 0; w &= w - 1 {
			rule := i*64 + bits.TrailingZeros64(w)
			if ok, _ := matches(&b.policy.Rules[rule], d, verdict.Inside); ok {
				return rule
			}
		}
	}
	return -1
}

// tupleSpace has a hash table for each combination of prefix lengths, and of whether protocol
// and destination port are single values. It divides ranges into prefixes, and compares the
// other fields of a rule one by one.
type tupleSpace struct {
	policy *filter.Policy
	tuples []*tuple // by their first rule
}

type tuple struct {
	src, dst       int // prefix length; -1 for any; plus 256 for IPv6
	port, protocol bool
	rules          map[tupleKey][]int32
	first          int32
}

type tupleKey struct {
	src, dst netip.Prefix
	port     uint16
	protocol uint8
}

func newTupleSpace(p *filter.Policy) *tupleSpace {
	type combination struct {
		src, dst       int
		port, protocol bool
	}
	t := &tupleSpace{policy: p}
	known := make(map[combination]*tuple)
	for i := range p.Rules {
		r := &p.Rules[i]
		k := tupleKey{}
		c := combination{port: isOne(r.DstPorts), protocol: isOne(r.Protocols)}
		if c.port {
			k.port = r.DstPorts[0].Lo
		}
		if c.protocol {
			k.protocol = r.Protocols[0].Lo
		}
		for _, k.src = range prefixesOf(r.Src) {
			for _, k.dst = range prefixesOf(r.Dst) {
				c.src, c.dst = lengthOf(k.src), lengthOf(k.dst)
				if known[c] == nil {
					known[c] = &tuple{c.src, c.dst, c.port, c.protocol, make(map[tupleKey][]int32), int32(i)}
					t.tuples = append(t.tuples, known[c])
				}
				known[c].rules[k] = append(known[c].rules[k], int32(i))
			}
		}
	}
	return t
}

func isOne[T ~uint8 | ~uint16](s filter.Set[T]) bool { return len(s) == 1 && s[0].Lo == s[0].Hi }

func lengthOf(p netip.Prefix) int {
	switch {
	case !p.IsValid():
		return -1
	case p.Addr().Is6():
		return 256 + p.Bits()
	}
	return p.Bits()
}

// prefixesOf divides a set into prefixes. The invalid prefix means all addresses.
func prefixesOf(s filter.AddrSet) []netip.Prefix {
	if s == nil {
		return []netip.Prefix{{}}
	}
	var all []netip.Prefix
	for _, r := range s {
		for at := r.Lo; at.IsValid() && at.Compare(r.Hi) <= 0; {
			n := at.BitLen() // the largest prefix that begins here and does not exceed the range
			for n > 0 {
				larger := netip.PrefixFrom(at, n-1)
				if larger.Masked().Addr() != at || r.Hi.Less(filter.PrefixRange(larger).Hi) {
					break
				}
				n--
			}
			all = append(all, netip.PrefixFrom(at, n))
			at = filter.PrefixRange(netip.PrefixFrom(at, n)).Hi.Next()
		}
	}
	return all
}

// first returns the number of the first rule that matches, or -1.
func (t *tupleSpace) first(d *packet.Parsed) int {
	best := int32(len(t.policy.Rules))
	prefix := func(a netip.Addr, length int) (p netip.Prefix, ok bool) {
		if length < 0 {
			return p, true
		}
		if a.Is6() != (length >= 256) {
			return p, false
		}
		p, _ = a.Prefix(length & 255)
		return p, true
	}
	for _, c := range t.tuples {
		if c.first >= best {
			break
		}
		var k tupleKey
		var ok bool
		if k.src, ok = prefix(d.Src, c.src); !ok {
			continue
		}
		if k.dst, ok = prefix(d.Dst, c.dst); !ok {
			continue
		}
		if c.port {
			k.port = d.DstPort
		}
		if c.protocol {
			k.protocol = d.Protocol
		}
		for _, rule := range c.rules[k] {
			if rule >= best {
				break
			}
			if ok, _ := matches(&t.policy.Rules[rule], d, verdict.Inside); ok {
				best = rule
			}
		}
	}
	if int(best) == len(t.policy.Rules) {
		return -1
	}
	return int(best)
}

// TestShapesAgree compares the three shapes on random policies.
func TestShapesAgree(t *testing.T) {
	for seed := range uint64(100) {
		g := &generator{rand.New(rand.NewPCG(seed, 9)), seed%3 == 0}
		p := &filter.Policy{Rules: g.rules(1 << g.IntN(7))}
		table, vectors, tuples := compile(t, p), newBitVectors(p), newTupleSpace(p)
		for range 100 {
			d := g.packet(p.Rules)
			if d.Transport == packet.Truncated {
				d.Transport = packet.NoFields
			}
			want := -1
			if v := table.Judge(&packet.View{Parsed: &d}, stopped); v.Rule != 0 {
				want = slices.IndexFunc(p.Rules, func(r filter.Rule) bool { return r.Name == table.Rule(v.Rule).Name })
			}
			if a, b := vectors.first(&d), tuples.first(&d); a != want || b != want {
				t.Fatalf("seed %d: %+v: the tree finds %d, bit vectors %d, tuples %d", seed, d, want, a, b)
			}
		}
	}
}

// BenchmarkShapes compares the three data structures with the same rules and packets. Bit
// vectors for 100,000 rules do not fit into memory, so it uses 10,000.
func BenchmarkShapes(b *testing.B) {
	kinds := []struct {
		name string
		most int // rules
		make func(p *filter.Policy) (find func(d *packet.Parsed))
	}{
		{"tree", 100_000, func(p *filter.Policy) func(*packet.Parsed) {
			table, d := compile(b, p), new(packet.View)
			return func(p *packet.Parsed) { d.Parsed = p; table.Judge(d, stopped) }
		}},
		{"bit-vectors", 10_000, func(p *filter.Policy) func(*packet.Parsed) {
			v := newBitVectors(p)
			return func(d *packet.Parsed) { v.first(d) }
		}},
		{"tuples", 100_000, func(p *filter.Policy) func(*packet.Parsed) {
			t := newTupleSpace(p)
			return func(d *packet.Parsed) { t.first(d) }
		}},
	}
	for _, s := range shapes {
		for _, n := range []int{10, 1000, 10_000, 100_000} {
			for _, kind := range kinds {
				if n > kind.most {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/%s", s.name, n, kind.name), func(b *testing.B) {
					p, packets := s.policy(n)
					var before, after runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&before)
					find := kind.make(p)
					runtime.GC()
					runtime.ReadMemStats(&after)
					benchmarkTrace(b, packets, find)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
				})
			}
		}
	}
}
