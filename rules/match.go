package rules

import (
	"slices"

	"fragwall/filter"
	"fragwall/packet"
)

// match reads the fields of a rule that match packet headers, and reports combinations
// that can never match.
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

// carriedProtocols is the value of a rule's protocol field.
type carriedProtocols struct {
	numbers []uint8 // none: any
	known   bool    // the field is valid
}

// only reports whether the rule is about exactly one protocol.
func (c carriedProtocols) only(number uint8) bool {
	return c.known && len(c.numbers) > 0 &&
		!slices.ContainsFunc(c.numbers, func(n uint8) bool { return n != number })
}

// icmpTypes returns the scale of ICMP types for the rule's family. If there is no single
// family, which is a mistake, the scale has the names of both, so that unknown names are
// reported, too.
func (c carriedProtocols) icmpTypes() scale {
	switch {
	case c.only(packet.ProtocolICMP):
		return icmpTypes
	case c.only(packet.ProtocolICMPv6):
		return icmpv6Types
	}
	return eitherICMPTypes
}

// checkPorts reports the first of the fields with ports if the protocol has none.
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

// checkICMP reports the first of the fields with an ICMP type or code if the protocol
// does not determine the family.
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

// neighborDiscovery is the types of neighbour discovery (RFC 4861 §4).
var neighborDiscovery = filter.NewSet(filter.Range[uint8]{Lo: 133, Hi: 137})

// noteNeighborDiscovery adds a note on types of which rules see only forged messages:
// those that passed a router.
func (c carriedProtocols) noteNeighborDiscovery(f field, types filter.Set[uint8]) {
	if len(types) > 0 && len(types.Without(neighborDiscovery)) == 0 && c.only(packet.ProtocolICMPv6) {
		f.note("policy.neighbor_discovery decides on neighbour discovery before any rule; this rule sees only what a router forwarded")
	}
}

// families are the address families that can match.
type families struct{ ipv4, ipv6 bool }

// familiesOf returns the families of the addresses, both for any.
func familiesOf(list filter.AddrSet) families {
	f := families{ipv4: list == nil, ipv6: list == nil}
	for _, r := range list {
		f.ipv4 = f.ipv4 || r.Lo.Is4()
		f.ipv6 = f.ipv6 || r.Lo.Is6()
	}
	return f
}

// String returns the name of a single family.
func (f families) String() string {
	if f.ipv4 {
		return "IPv4"
	}
	return "IPv6"
}

// checkFamilies reports addresses that no packet can have together, or with the protocol.
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
