package filter_test

import (
	"net/netip"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

func prefix(s string) filter.AddrSet {
	return filter.NewAddrSet(filter.PrefixRange(netip.MustParsePrefix(s)))
}

func one[T ~uint8 | ~uint16](v T) filter.Set[T] {
	return filter.NewSet(filter.Range[T]{Lo: v, Hi: v})
}

func side(s verdict.Side) *verdict.Side { return &s }
func yes(b bool) *bool                  { return &b }

func compile(t testing.TB, p *filter.Policy) *filter.Table {
	t.Helper()
	return filter.Compile(p, nil)
}

// stopped is a clock that does not advance.
func stopped() time.Duration { return 0 }

func judge(t *testing.T, p *filter.Policy, d *packet.Parsed) filter.Verdict {
	t.Helper()
	return compile(t, p).Judge(&packet.View{Parsed: d}, stopped)
}

func decode(t testing.TB, frame []byte) *packet.Parsed {
	t.Helper()
	p := new(packet.Parsed)
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatalf("the frame does not decode: %v", why)
	}
	return p
}

// TestRuleFields adds one field at a time to a rule, with a value that matches the datagram and
// one that does not.
func TestRuleFields(t *testing.T) {
	d := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:53"), nil)
	d.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 0xe00a}, {TPID: 0x8100, TCI: 20}}
	udp := decode(t, d.Frame())
	echo := decode(t, packettest.Datagram{Src: packettest.InsideIPv4, Dst: packettest.OutsideIPv4,
		Protocol: packet.ProtocolICMP, Payload: []byte{8, 3, 0, 0}}.Frame())

	d.Tags = []packet.Tag{{TPID: 0x8100, TCI: 0xe000}}
	priority := decode(t, d.Frame())
	d.Tags = append(d.Tags, packet.Tag{TPID: 0x8100, TCI: 10})
	behind := decode(t, d.Frame())

	tests := []struct {
		name string
		on   *packet.Parsed
		rule filter.Rule
		want bool
	}{
		{"nothing", udp, filter.Rule{}, true},
		{"from", udp, filter.Rule{From: side(verdict.Inside)}, true},
		{"from the other side", udp, filter.Rule{From: side(verdict.Outside)}, false},
		{"protocol", udp, filter.Rule{Protocols: one[uint8](17)}, true},
		{"another protocol", udp, filter.Rule{Protocols: one[uint8](6)}, false},
		{"source", udp, filter.Rule{Src: prefix("10.0.0.0/24")}, true},
		{"another source", udp, filter.Rule{Src: prefix("10.0.1.0/24")}, false},
		{"a source of the other family", udp, filter.Rule{Src: prefix("::/0")}, false},
		{"destination", udp, filter.Rule{Dst: prefix("192.0.2.1/32")}, true},
		{"another destination", udp, filter.Rule{Dst: prefix("192.0.2.2/32")}, false},
		{"source port", udp, filter.Rule{SrcPorts: one[uint16](1000)}, true},
		{"another source port", udp, filter.Rule{SrcPorts: one[uint16](53)}, false},
		{"destination port", udp, filter.Rule{DstPorts: one[uint16](53)}, true},
		{"another destination port", udp, filter.Rule{DstPorts: one[uint16](1000)}, false},
		{"ports of a protocol without ports", echo, filter.Rule{DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 0, Hi: 65535})}, false},
		{"outermost vlan", udp, filter.Rule{VLANs: &filter.VLANs{IDs: one[uint16](10)}}, true},
		{"inner vlan", udp, filter.Rule{VLANs: &filter.VLANs{IDs: one[uint16](20)}}, false},
		{"untagged", udp, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: filter.NewSet[uint16]()}}, false},
		{"untagged, without a tag", echo, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: filter.NewSet[uint16]()}}, true},
		{"a vlan, without a tag", echo, filter.Rule{VLANs: &filter.VLANs{IDs: one[uint16](10)}}, false},
		{"untagged, with a priority tag", priority, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: filter.NewSet[uint16]()}}, true},
		{"untagged, with a vlan inside a priority tag", behind, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: filter.NewSet[uint16]()}}, false},
		{"vlan inside a priority tag", behind, filter.Rule{VLANs: &filter.VLANs{IDs: one[uint16](10)}}, true},
		{"whole packet", udp, filter.Rule{Fragmented: yes(false)}, true},
		{"arrived in fragments", udp, filter.Rule{Fragmented: yes(true)}, false},
		{"icmp type and code", echo, filter.Rule{ICMPTypes: one[uint8](8), ICMPCodes: one[uint8](3)}, true},
		{"another icmp type", echo, filter.Rule{ICMPTypes: one[uint8](0)}, false},
		{"another icmp code", echo, filter.Rule{ICMPCodes: one[uint8](0)}, false},
		{"icmp type of another protocol", udp, filter.Rule{ICMPTypes: filter.NewSet(filter.Range[uint8]{Lo: 0, Hi: 255})}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Action = verdict.Accept
			p := &filter.Policy{Rules: []filter.Rule{tt.rule}}
			v := judge(t, p, tt.on)
			if got := v.Action == verdict.Accept; got != tt.want {
				t.Errorf("%v", v)
			}
			if tt.want && (v.Rule != 1 || v.Reason != verdict.Passed) || !tt.want && v.Reason != verdict.PolicyDefault {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestFirstMatchWins(t *testing.T) {
	udp := decode(t, packettest.UDP(netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:53"), nil).Frame())
	p := &filter.Policy{Default: verdict.Accept, Rules: []filter.Rule{
		{Name: "other", Action: verdict.Accept, Protocols: one[uint8](6)},
		{Name: "no", Action: verdict.Drop, DstPorts: one[uint16](53)},
		{Name: "yes", Action: verdict.Accept},
	}}
	if v := judge(t, p, udp); v.Action != verdict.Drop || v.Reason != verdict.PolicyRule || p.Rules[v.Rule-1].Name != "no" {
		t.Errorf("%v, %v", v, v.Reason)
	}
}

// TestBeforeTheRules has frames that are decided before the rules, and a rule that would decide
// otherwise.
func TestBeforeTheRules(t *testing.T) {
	icmpv6 := func(kind, hopLimit uint8) []byte {
		return packettest.Datagram{Src: packettest.InsideIPv6, Dst: packettest.OutsideIPv6, TTL: hopLimit,
			Protocol: packet.ProtocolICMPv6, Payload: []byte{kind, 0, 0, 0}}.Frame()
	}
	tests := []struct {
		name  string
		frame []byte
		want  verdict.Reason
	}{
		{"arp", packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28)), verdict.PolicyARP},
		{"lldp", packettest.Datagram{}.Ethernet(0x88cc, make([]byte, 28)), verdict.PolicyNonIP},
		{"router solicitation", icmpv6(133, 255), verdict.PolicyNeighborDiscovery},
		{"redirect", icmpv6(137, 255), verdict.PolicyNeighborDiscovery},
		{"redirect from another link", icmpv6(137, 254), verdict.PolicyDefault},
		{"mld report", icmpv6(143, 255), verdict.PolicyDefault},
		{"echo", icmpv6(128, 255), verdict.PolicyDefault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := decode(t, tt.frame)
			if v := judge(t, new(filter.Policy), d); v.Action != verdict.Drop || v.Reason != tt.want {
				t.Errorf("the zero policy: %v, %v", v, v.Reason)
			}
			open := &filter.Policy{Default: verdict.Accept, ARP: verdict.Accept, NeighborDiscovery: verdict.Accept, NonIP: verdict.Accept}
			if v := judge(t, open, d); v.Action != verdict.Accept {
				t.Errorf("an open policy: %v", v)
			}
		})
	}
}

// TestTruncatedTransport has a rule that would decide if the datagram had its ports.
func TestTruncatedTransport(t *testing.T) {
	short := decode(t, packettest.Datagram{Src: packettest.InsideIPv4, Dst: packettest.OutsideIPv4,
		Protocol: packet.ProtocolUDP, Payload: []byte{0, 53}}.Frame())
	tests := []struct {
		name string
		rule filter.Rule
		want verdict.Reason
	}{
		{"needs a port", filter.Rule{Protocols: one[uint8](17), DstPorts: one[uint16](53)}, verdict.TransportTruncated},
		{"needs a port, of another source", filter.Rule{Src: prefix("11.0.0.0/8"), DstPorts: one[uint16](53)}, verdict.Passed},
		{"needs an icmp type", filter.Rule{ICMPTypes: one[uint8](8)}, verdict.Passed},
		{"needs none", filter.Rule{Action: verdict.Drop, Protocols: one[uint8](17)}, verdict.PolicyRule},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &filter.Policy{Default: verdict.Accept, Rules: []filter.Rule{tt.rule}}
			if v := judge(t, p, short); v.Reason != tt.want {
				t.Errorf("%v, %v", v, v.Reason)
			}
		})
	}
}

func TestJudgeAllocatesNothing(t *testing.T) {
	udp := decode(t, packettest.UDP(netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:53"), nil).Frame())
	table := compile(t, &filter.Policy{Rules: []filter.Rule{
		{Src: prefix("10.0.1.0/24")}, {Limit: filter.Rate{Count: 1, Per: time.Hour}}, {Action: verdict.Accept, DstPorts: one[uint16](53)},
	}})
	d := &packet.View{Parsed: udp}
	if n := testing.AllocsPerRun(100, func() { table.Judge(d, stopped) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
