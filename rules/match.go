package rules

import (
	"slices"

	"fragwall/filter"
	"fragwall/packet"
)

// match reads what a rule matches a packet's headers by, and reports what
// could never match.
func (t table) match(rule *filter.Rule, sets sets) {
	var carried carriedProtocols
	rule.Protocols, carried.known = numberSet[uint8](t.field("protocol"), protocols)
	for _, r := range rule.Protocols {
		for n := int(r.Lo); n <= int(r.Hi); n++ {
			carried.numbers = append(carried.numbers, uint8(n))
		}
	}

	rule.SrcPorts, _ = numberSet[uint16](t.field("src_port"), ports)
	rule.DstPorts, _ = numberSet[uint16](t.field("dst_port"), ports)
	rule.ICMPTypes, _ = numberSet[uint8](t.field("icmp_type"), carried.icmpTypes())
	rule.ICMPCodes, _ = numberSet[uint8](t.field("icmp_code"), icmpCodes)
	carried.checkPorts(t.field("src_port"), t.field("dst_port"))
	carried.checkICMP(t.field("icmp_type"), t.field("icmp_code"))
	carried.noteNeighborDiscovery(t.field("icmp_type"), rule.ICMPTypes)

	var srcOK, dstOK bool
	rule.Src, srcOK = sets.addresses(t.field("src"))
	rule.Dst, dstOK = sets.addresses(t.field("dst"))
	if srcOK && dstOK {
		t.checkFamilies(familiesOf(rule.Src), familiesOf(rule.Dst), carried)
	}
}

// carriedProtocols is what a rule's protocol field says.
type carriedProtocols struct {
	numbers []uint8 // none: any
	known   bool    // the field is right
}

// only reports whether the rule is about one protocol alone.
func (c carriedProtocols) only(number uint8) bool {
	return c.known && len(c.numbers) > 0 &&
		!slices.ContainsFunc(c.numbers, func(n uint8) bool { return n != number })
}

// icmpTypes returns the scale of the types that the rule's family of ICMP
// has. Where there is no one family, which is a mistake, it is of all names,
// so that those of neither are reported too.
func (c carriedProtocols) icmpTypes() scale {
	switch {
	case c.only(packet.ProtocolICMP):
		return icmpTypes
	case c.only(packet.ProtocolICMPv6):
		return icmpv6Types
	}
	return eitherICMPTypes
}

// checkPorts reports the first of the fields that asks for ports where the
// protocol has none.
func (c carriedProtocols) checkPorts(fields ...field) {
	for _, f := range fields {
		if f.matchesAny() || !c.known {
			continue
		}
		if len(c.numbers) == 0 {
			f.fail("ports need a protocol with ports; add protocol = \"udp\", or a list of tcp, udp, udplite, sctp and dccp")
			return
		}
		for _, n := range c.numbers {
			if !packet.HasPorts(n) {
				f.fail("protocol %s has no ports; use only tcp, udp, udplite, sctp or dccp with ports", protocolName(int64(n)))
				return
			}
		}
	}
}

// checkICMP reports the first of the fields that asks for a type or code where
// the protocol does not say which family's.
func (c carriedProtocols) checkICMP(fields ...field) {
	if !c.known || c.only(packet.ProtocolICMP) || c.only(packet.ProtocolICMPv6) {
		return
	}
	for _, f := range fields {
		if f.matchesAny() {
			continue
		}
		if len(c.numbers) == 0 {
			f.fail("needs a protocol; add protocol = \"icmp\" or protocol = \"icmpv6\"")
		} else {
			f.fail("needs protocol \"icmp\" or \"icmpv6\" alone, because their numbers differ; write one rule for each protocol")
		}
		return
	}
}

// neighborDiscovery is its types (RFC 4861 §4).
var neighborDiscovery = filter.NewSet(filter.Range[uint8]{Lo: 133, Hi: 137})

// noteNeighborDiscovery remarks on types that rules see nothing of but what is
// forged: routers take a hop away.
func (c carriedProtocols) noteNeighborDiscovery(f field, types filter.Set[uint8]) {
	if len(types) > 0 && len(types.Without(neighborDiscovery)) == 0 && c.only(packet.ProtocolICMPv6) {
		f.note("policy.neighbor_discovery decides on neighbour discovery before any rule; this rule sees only what a router forwarded")
	}
}

// families says which address families may match.
type families struct{ ipv4, ipv6 bool }

// familiesOf returns the families that addresses are of, both for any.
func familiesOf(list filter.AddrSet) families {
	f := families{ipv4: list == nil, ipv6: list == nil}
	for _, r := range list {
		f.ipv4 = f.ipv4 || r.Lo.Is4()
		f.ipv6 = f.ipv6 || r.Lo.Is6()
	}
	return f
}

// String names a single family.
func (f families) String() string {
	if f.ipv4 {
		return "IPv4"
	}
	return "IPv6"
}

// checkFamilies reports addresses that no packet can have together, or with
// the protocol.
func (t table) checkFamilies(src, dst families, carried carriedProtocols) {
	both := families{ipv4: src.ipv4 && dst.ipv4, ipv6: src.ipv6 && dst.ipv6}
	switch {
	case both == families{}:
		t.field("dst").fail("only %s, but src is only %s, so no packet can match; want the same family in both", dst, src)
	case !both.ipv4 && carried.only(packet.ProtocolICMP):
		t.field("protocol").fail("\"icmp\" is for IPv4, but the addresses are IPv6; did you mean \"icmpv6\"?")
	case !both.ipv6 && carried.only(packet.ProtocolICMPv6):
		t.field("protocol").fail("\"icmpv6\" is for IPv6, but the addresses are IPv4; did you mean \"icmp\"?")
	}
}
