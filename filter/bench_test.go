package filter_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gaissmai/bart"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// shape is a kind of policy, with any number of rules.
type shape struct {
	name string
	rule func(g *rand.Rand, i, n int) filter.Rule // rule i of n
}

// shapes are kinds of policies that exist in practice.
var shapes = []shape{
	// Each rule is for a service on one host and one client network.
	{"hosts", func(g *rand.Rand, i, _ int) filter.Rule {
		return filter.Rule{Protocols: one[uint8](17), Src: network(g, 24), Dst: host(g), DstPorts: one(uint16(g.IntN(1000)))}
	}},
	// Networks of both families only.
	{"blocklist", func(g *rand.Rand, i, _ int) filter.Rule {
		if i%2 == 0 {
			return filter.Rule{Src: network(g, 16+g.IntN(17))}
		}
		return filter.Rule{Src: network6(g, 32+g.IntN(33))}
	}},
	// What a site has: nested networks, address ranges, port ranges, lists, both families, and
	// a few rules for all hosts.
	{"mixed", func(g *rand.Rand, i, _ int) filter.Rule {
		r := filter.Rule{Protocols: one[uint8](6 + uint8(g.IntN(2))*11)}
		if i%5 == 4 {
			r.Src, r.Dst = network6(g, 48), network6(g, 64)
		} else {
			r.Src, r.Dst = network(g, 8+g.IntN(25)), network(g, 20+g.IntN(13))
		}
		switch i % 4 {
		case 0:
			lo := uint16(g.IntN(60000))
			r.DstPorts = filter.NewSet(filter.Range[uint16]{Lo: lo, Hi: lo + uint16(g.IntN(2000))})
		case 1:
			r.DstPorts = filter.NewSet(filter.Range[uint16]{Lo: 80, Hi: 80}, filter.Range[uint16]{Lo: 443, Hi: 443})
		}
		switch {
		case i%100 == 7 && i < 2000:
			r.Src = nil
		case i%100 == 8 && i < 2000:
			r.Dst = nil
		case i%10 == 3:
			a := host(g)[0].Lo
			b := binary.BigEndian.Uint32(a.AsSlice())
			to := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, b|uint32(g.IntN(1000)))))
			r.Dst = filter.NewAddrSet(filter.Range[netip.Addr]{Lo: a, Hi: to})
		}
		return r
	}},
}

func host(g *rand.Rand) filter.AddrSet { return network(g, 32) }

func network(g *rand.Rand, bits int) filter.AddrSet {
	a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, g.Uint32())))
	return filter.NewAddrSet(filter.PrefixRange(netip.PrefixFrom(a, bits)))
}

func network6(g *rand.Rand, bits int) filter.AddrSet {
	b := binary.BigEndian.AppendUint64(nil, 0x2001<<48|g.Uint64()>>16)
	a := netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(b, g.Uint64())))
	return filter.NewAddrSet(filter.PrefixRange(netip.PrefixFrom(a, bits)))
}

// policy returns a policy with n rules, and packets of 1,024 flows in random order. The packets
// match rules throughout the policy, and many match none.
func (s shape) policy(n int) (*filter.Policy, []packet.Parsed) {
	g := rand.New(rand.NewPCG(1, uint64(n)))
	p := &filter.Policy{Rules: make([]filter.Rule, n)}
	for i := range p.Rules {
		p.Rules[i] = s.rule(g, i, n)
		p.Rules[i].Name, p.Rules[i].Action = fmt.Sprint(i), verdict.Accept
	}
	packets := make([]packet.Parsed, 1024)
	for i := range packets {
		r := &p.Rules[g.IntN(n)]
		d := packet.Parsed{Kind: packet.IPv4, Protocol: 17, Transport: packet.Ports, SrcPort: uint16(g.Uint32()), DstPort: uint16(g.IntN(1000))}
		if r.Protocols != nil {
			d.Protocol = r.Protocols[0].Lo
		}
		if r.Src != nil {
			d.Src = r.Src[0].Lo
		}
		if r.Dst != nil {
			d.Dst = r.Dst[0].Hi
		}
		if r.DstPorts != nil && i%2 == 0 {
			d.DstPort = r.DstPorts[0].Hi
		}
		other := host(g)[0].Lo
		if d.Src.Is6() || d.Dst.Is6() {
			d.Kind, other = packet.IPv6, network6(g, 64)[0].Lo
		}
		if !d.Src.IsValid() {
			d.Src = other
		}
		if !d.Dst.IsValid() {
			d.Dst = other
		}
		packets[i] = d
	}
	return p, packets
}

// BenchmarkLookup shows that the cost of a verdict does not depend on the number of rules.
func BenchmarkLookup(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) { benchmarkLookup(b, s, n) })
		}
	}
}

func benchmarkLookup(b *testing.B, s shape, n int) {
	p, packets := s.policy(n)
	table := compile(b, p)
	d := packet.View{BodyLength: 64}
	b.ReportAllocs()
	benchmarkTrace(b, packets, func(p *packet.Parsed) { d.Parsed = p; table.Judge(&d, stopped) })
}

// benchmarkTrace looks up packets one after the other. As on a wire, they reuse the same few
// bytes of memory, so the caches remain available to the table.
func benchmarkTrace(b *testing.B, packets []packet.Parsed, find func(*packet.Parsed)) {
	type flow struct {
		src, dst         netip.Addr
		srcPort, dstPort uint16
		protocol         uint8
		kind             packet.Kind
	}
	flows := make([]flow, len(packets))
	for i, p := range packets {
		flows[i] = flow{p.Src, p.Dst, p.SrcPort, p.DstPort, p.Protocol, p.Kind}
	}
	p := packets[0]
	i := 0
	for b.Loop() {
		f := &flows[i]
		p.Src, p.Dst, p.SrcPort, p.DstPort, p.Protocol, p.Kind = f.src, f.dst, f.srcPort, f.dstPort, f.protocol, f.kind
		find(&p)
		if i++; i == len(flows) {
			i = 0
		}
	}
}

// BenchmarkAddressIndex compares data structures for address lookup with 100,000 hosts.
func BenchmarkAddressIndex(b *testing.B) {
	g := rand.New(rand.NewPCG(1, 1))
	var ranges []filter.Range[netip.Addr]
	var trie bart.Fast[uint32]
	for i := range 100_000 {
		a := network6(g, 64)
		if i%2 == 0 {
			a = host(g)
		}
		ranges = append(ranges, a...)
		bits := min(a[0].Lo.BitLen(), 64)
		trie.Insert(netip.PrefixFrom(a[0].Lo, bits), uint32(i))
	}
	set := filter.NewAddrSet(ranges...)
	probes := make([]netip.Addr, 1024)
	for i := range probes {
		probes[i] = ranges[g.IntN(len(ranges))].Hi
	}
	for _, shape := range []struct {
		name string
		find func(a netip.Addr) bool
	}{
		{"index", filter.IndexOf(set)},
		{"binary-search", set.Contains},
		{"bart", func(a netip.Addr) bool { _, ok := trie.Lookup(a); return ok }},
	} {
		b.Run(shape.name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				if !shape.find(probes[i%len(probes)]) {
					b.Fatal("not found")
				}
				i++
			}
		})
	}
}
