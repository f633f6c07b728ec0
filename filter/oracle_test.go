package filter_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// oracle judges by the rules one after the other, field by field. It is slow and obvious. The
// compiled table must agree with it.
func oracle(p *filter.Policy, d *packet.Parsed, from verdict.Side) filter.Verdict {
	for i := range p.Rules {
		r, number := &p.Rules[i], verdict.Rule(i+1)
		switch matched, truncated := matches(r, d, from); {
		case truncated: // not cacheable
			return filter.Verdict{Generation: 1, Reason: verdict.TransportTruncated, Rule: number, Flags: flags(r.Log, false)}
		case !matched:
			continue
		case r.Action == verdict.Accept:
			return filter.Verdict{Generation: 1, Action: verdict.Accept, Rule: number, Flags: flags(r.Log, !r.Log)}
		}
		return filter.Verdict{Generation: 1, Action: r.Action, Reason: verdict.PolicyRule, Rule: number, Flags: flags(r.Log, !r.Log && r.Action == verdict.Drop)}
	}
	if p.Default == verdict.Accept {
		return filter.Verdict{Generation: 1, Action: verdict.Accept, Flags: filter.Cacheable}
	}
	return filter.Verdict{Generation: 1, Action: p.Default, Reason: verdict.PolicyDefault, Flags: flags(false, p.Default == verdict.Drop)}
}

func flags(logged, cacheable bool) (f filter.Flags) {
	if logged {
		f |= filter.Logged
	}
	if cacheable {
		f |= filter.Cacheable
	}
	return f
}

// matches compares a rule and a packet, which may be too short to tell.
func matches(r *filter.Rule, d *packet.Parsed, from verdict.Side) (matched, truncated bool) {
	ports, icmp := r.SrcPorts != nil || r.DstPorts != nil, r.ICMPTypes != nil || r.ICMPCodes != nil
	needs := icmp
	if packet.HasPorts(d.Protocol) {
		needs = ports
	}
	switch {
	case ports && icmp, r.From != nil && *r.From != from, r.Fragmented != nil && *r.Fragmented != d.Fragmented,
		r.VLANs != nil && !inVLANs(r.VLANs, d),
		!r.Protocols.Contains(d.Protocol), !r.Src.Contains(d.Src), !r.Dst.Contains(d.Dst):
		return false, false
	case d.Transport == packet.Truncated && needs:
		return false, true
	case ports && (d.Transport != packet.Ports || !r.SrcPorts.Contains(d.SrcPort) || !r.DstPorts.Contains(d.DstPort)):
		return false, false
	case icmp && (d.Transport != packet.ICMP || !r.ICMPTypes.Contains(d.ICMPType) || !r.ICMPCodes.Contains(d.ICMPCode)):
		return false, false
	}
	return true, false
}

func inVLANs(v *filter.VLANs, d *packet.Parsed) bool {
	for _, tag := range d.Tags[:d.TagCount] {
		if id := tag.VID(); id != 0 {
			return v.IDs.Contains(id)
		}
	}
	return v.Untagged
}

// TestAgainstOracle compares random policies with the oracle, for random packets and for
// packets made to match one of the rules. FRAGWALL_PAIRS sets the number of policies and
// packets; the default takes seconds.
func TestAgainstOracle(t *testing.T) {
	pairs := 200_000
	if testing.Short() {
		pairs = 20_000
	}
	if n, err := strconv.Atoi(os.Getenv("FRAGWALL_PAIRS")); err == nil {
		pairs = n
	}
	const packets = 200
	for seed := range uint64(pairs / packets) {
		g := &generator{rand.New(rand.NewPCG(seed, 7)), seed%3 == 0}
		p := &filter.Policy{Default: verdict.Action(g.IntN(3)), Rules: g.rules(1 << g.IntN(9))}
		table := compile(t, p)
		for range packets {
			d := g.packet(p.Rules)
			from := verdict.Side(g.IntN(2))
			got, want := table.Judge(&packet.View{Parsed: &d, From: from}, stopped), oracle(p, &d, from)
			if got != want {
				t.Fatalf("seed %d, %d rules, %+v from %v: %v, want %v\n%+v", seed, len(p.Rules), d, from, got, want, table.Rule(want.Rule))
			}
		}
	}
}

// generator makes related policies and packets: values are chosen from few, so that sets
// are equal, nested or overlap.
type generator struct {
	*rand.Rand
	dense bool // few values, much overlap
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) addr() netip.Addr {
	spread := 256
	if g.dense {
		spread = 4
	}
	if g.chance(40) {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[4], a[7], a[8], a[15] = byte(g.IntN(spread)), byte(g.IntN(3)), byte(g.IntN(3)), byte(g.IntN(spread))
		if g.chance(10) {
			a[0] = byte(g.IntN(256))
		}
		return netip.AddrFrom16(a)
	}
	a := [4]byte{10, byte(g.IntN(3)), byte(g.IntN(spread)), byte(g.IntN(spread))}
	if g.chance(10) {
		a[0] = byte(g.IntN(256))
	}
	return netip.AddrFrom4(a)
}

func (g *generator) addrs() filter.AddrSet {
	if g.chance(30) {
		return nil
	}
	var ranges []filter.Range[netip.Addr]
	for range 1 + g.IntN(3)*g.IntN(3) {
		a := g.addr()
		switch {
		case g.chance(60):
			ranges = append(ranges, filter.PrefixRange(netip.PrefixFrom(a, g.IntN(a.BitLen()+1))))
		default:
			b := g.addr()
			if a.Is4() == b.Is4() {
				ranges = append(ranges, filter.Range[netip.Addr]{Lo: a, Hi: b})
			}
		}
	}
	s := filter.NewAddrSet(ranges...)
	if g.chance(20) {
		return s.Complement()
	}
	return s
}

func (g *generator) port() uint16 {
	if g.dense || g.chance(70) {
		return uint16(g.IntN(8))
	}
	return uint16(g.IntN(1 << 16))
}

func (g *generator) ports() filter.Set[uint16] {
	if g.chance(30) {
		return nil
	}
	var ranges []filter.Range[uint16]
	for range 1 + g.IntN(3) {
		lo := g.port()
		ranges = append(ranges, filter.Range[uint16]{Lo: lo, Hi: max(lo, min(g.port(), g.port()))})
	}
	s := filter.NewSet(ranges...)
	if g.chance(10) {
		return s.Complement()
	}
	return s
}

func (g *generator) icmp() filter.Set[uint8] {
	if g.chance(30) {
		return nil
	}
	return filter.NewSet(filter.Range[uint8]{Lo: uint8(g.IntN(4)), Hi: uint8(g.IntN(10))}, filter.Range[uint8]{Lo: 255, Hi: 255})
}

var someProtocols = []uint8{packet.ProtocolICMP, packet.ProtocolTCP, packet.ProtocolUDP, packet.ProtocolICMPv6, packet.ProtocolGRE, 255}

func (g *generator) rules(n int) []filter.Rule {
	rules := make([]filter.Rule, n)
	for i := range rules {
		r := &rules[i]
		r.Name, r.Action = strconv.Itoa(i), verdict.Action(g.IntN(3))
		if g.chance(60) {
			r.Src = g.addrs()
		}
		if g.chance(80) {
			r.Dst = g.addrs()
		}
		if g.chance(30) {
			r.From = side(verdict.Side(g.IntN(2)))
		}
		if g.chance(70) {
			r.Protocols = one[uint8](someProtocols[g.IntN(len(someProtocols))])
		}
		switch g.IntN(4) {
		case 0, 1:
			r.SrcPorts, r.DstPorts = g.ports(), g.ports()
		case 2:
			r.ICMPTypes, r.ICMPCodes = g.icmp(), g.icmp()
		}
		if g.chance(20) {
			r.VLANs = &filter.VLANs{Untagged: g.chance(50), IDs: filter.NewSet(filter.Range[uint16]{Lo: uint16(g.IntN(4)), Hi: uint16(g.IntN(6))})}
		}
		if g.chance(20) {
			r.Fragmented = yes(g.chance(50))
		}
	}
	return rules
}

// packet returns a decoded IP packet. Half of the packets match a part of a rule.
func (g *generator) packet(rules []filter.Rule) packet.Parsed {
	d := packet.Parsed{Src: g.addr(), Protocol: someProtocols[g.IntN(len(someProtocols))], Fragmented: g.chance(30)}
	for d.Dst = g.addr(); d.Dst.Is4() != d.Src.Is4(); {
		d.Dst = g.addr()
	}
	if g.chance(50) {
		r := rules[g.IntN(len(rules))]
		if len(r.Protocols) > 0 {
			d.Protocol = r.Protocols[0].Lo
		}
		edge := func(s filter.AddrSet, a *netip.Addr) {
			if len(s) == 0 {
				return
			}
			e := s[g.IntN(len(s))]
			for _, b := range []netip.Addr{e.Lo, e.Hi, e.Lo.Prev(), e.Hi.Next()}[g.IntN(4):] {
				if b.IsValid() && b.Is4() == d.Src.Is4() {
					*a = b
				}
			}
		}
		edge(r.Src, &d.Src)
		edge(r.Dst, &d.Dst)
	}
	if d.Kind = packet.IPv6; d.Src.Is4() {
		d.Kind = packet.IPv4
	}
	switch {
	case packet.HasPorts(d.Protocol):
		d.Transport, d.SrcPort, d.DstPort = packet.Ports, g.port(), g.port()
	case d.Kind == packet.IPv4 && d.Protocol == packet.ProtocolICMP, d.Kind == packet.IPv6 && d.Protocol == packet.ProtocolICMPv6:
		d.Transport, d.ICMPType, d.ICMPCode = packet.ICMP, uint8(g.IntN(10)), uint8(g.IntN(10))
	}
	if d.Transport != packet.NoFields && g.chance(10) {
		d.Transport = packet.Truncated
	}
	if g.chance(30) {
		d.TagCount = uint8(g.IntN(3))
		d.Tags[0].TCI, d.Tags[1].TCI = uint16(g.IntN(6)), uint16(g.IntN(6))
	}
	return d
}

// TestLimit takes the datagrams of one second at once, and then those that time adds.
func TestLimit(t *testing.T) {
	tests := []struct {
		rate  filter.Rate
		burst int
		later time.Duration // time after which one more matches, not earlier
	}{
		{filter.Rate{Count: 100, Per: time.Second}, 100, 10 * time.Millisecond},
		{filter.Rate{Count: 3, Per: time.Second}, 3, 333333334},
		{filter.Rate{Count: 1, Per: time.Second}, 1, time.Second},
		{filter.Rate{Count: 6, Per: time.Minute}, 1, 10 * time.Second},
		{filter.Rate{Count: 120, Per: time.Minute}, 2, time.Second / 2},
	}
	udp := &packet.View{BodyLength: 20, Parsed: &packet.Parsed{
		Kind: packet.IPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}}
	for _, tt := range tests {
		t.Run(tt.rate.String(), func(t *testing.T) {
			now := -time.Hour // a clock may start at any value
			table := compile(t, &filter.Policy{Rules: []filter.Rule{{Name: "some", Action: verdict.Accept, Limit: tt.rate}, {Name: "rest"}}})
			matches := func() int {
				for n := 0; ; n++ {
					v := table.Judge(udp, func() time.Duration { return now })
					if v.Rule == 1 && v.OverLimit == 0 {
						continue
					}
					if v.Rule != 2 || v.OverLimit != 1 {
						t.Errorf("over the limit: %+v", v)
					}
					return n
				}
			}
			for _, step := range []struct {
				after time.Duration
				want  int
			}{{0, tt.burst}, {tt.later - 1, 0}, {1, 1}, {100 * time.Hour, tt.burst}} {
				now += step.after
				if n := matches(); n != step.want {
					t.Errorf("after %v: %d match, want %d", step.after, n, step.want)
				}
			}
			if n := table.Count(1); n.Datagrams != 4 || n.Bytes != 80 {
				t.Errorf("the next rule: %+v", n)
			}
			if n := table.Count(0); n.OverLimit != 4 {
				t.Errorf("the rule with the limit: %+v", n)
			}
		})
	}
}
