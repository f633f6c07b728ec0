package filter

import "fragwall/packet"

// DropsSourceRoutes reports whether packets with a source route are to be
// dropped. That is asked of every packet and of every fragment, before Judge.
func (t *Table) DropsSourceRoutes() bool { return t.policy.SourceRoute != Accept }

// Judge returns the verdict on a datagram. The clock is asked where a rule
// with a limit matches, and where the policy is stateful.
func (t *Table) Judge(d *packet.View, now Clock) Verdict {
	switch {
	case d.Kind == packet.ARP:
		return fixed(t.policy.ARP, packet.PolicyARP)
	case d.Kind == packet.NonIP:
		return fixed(t.policy.NonIP, packet.PolicyNonIP)
	case d.NeighborDiscovery():
		return fixed(t.policy.NeighborDiscovery, packet.PolicyNeighborDiscovery)
	}
	if t.flows != nil {
		return t.track(d, now)
	}
	v, _ := t.byRules(d, now)
	return v
}

// byRules returns the verdict of the first rule that matches, and its number;
// where there is none, that of the default, and none.
func (t *Table) byRules(d *packet.View, now Clock) (Verdict, uint32) {
	return t.by(t.tree.root, d, now)
}

// by returns the verdict of the first rule under a root of the tree that
// matches, and its number.
func (t *Table) by(root ref, d *packet.View, now Clock) (Verdict, uint32) {
	k := t.key(d)
	var over *Rule
	rule := t.tree.search(root, &k, 0)
	for rule != none && t.tree.boxes[rule].limited && !t.buckets[rule].Take(now()) {
		t.counters[d.From][rule].overLimit.Add(1)
		if over == nil {
			over = &t.policy.Rules[rule]
		}
		rule = t.tree.search(root, &k, rule+1)
	}
	if rule == none {
		v := fixed(t.policy.Default, packet.PolicyDefault)
		v.OverLimit = over
		return v, none
	}
	t.count(rule, d)
	b := &t.tree.boxes[rule]
	v := fixed(b.action, packet.PolicyRule)
	if d.Transport == packet.Truncated && b.needs&needed(d.Protocol) != 0 {
		v = fixed(Drop, packet.TransportTruncated)
	}
	v.Rule, v.OverLimit = &t.policy.Rules[rule], over
	return v, rule
}

// byFragmentRules returns the verdict of the first rule that asks whether a
// datagram came in fragments and matches; it reports false where there is none.
func (t *Table) byFragmentRules(d *packet.View, now Clock) (v Verdict, found bool) {
	if t.tree.fragments == emptyLeaf {
		return v, false
	}
	v, rule := t.by(t.tree.fragments, d, now)
	return v, rule != none
}

// count counts a datagram for a rule.
func (t *Table) count(rule uint32, d *packet.View) {
	c := t.counters[d.From][rule]
	c.datagrams.Add(1)
	c.bytes.Add(uint64(d.Length()))
}

// fixed returns the verdict of an action that no rule took, for a reason.
func fixed(a Action, why packet.Reason) Verdict {
	if a == Accept {
		return Verdict{Action: Accept}
	}
	return Verdict{Action: a, Reason: why}
}

// needed returns what a datagram of the protocol should have had, where its
// transport header is truncated.
func needed(protocol uint8) uint8 {
	if packet.HasPorts(protocol) {
		return needPorts
	}
	return needICMP
}

// key returns the classes of an IP packet.
func (t *Table) key(d *packet.View) key {
	first, second := uint32(fieldNone), uint32(fieldNone)
	switch d.Transport {
	case packet.Ports:
		first, second = uint32(d.SrcPort), uint32(d.DstPort)
	case packet.ICMP:
		first, second = fieldICMP+uint32(d.ICMPType), fieldICMP+uint32(d.ICMPCode)
	case packet.Truncated:
		first = fieldTruncatedICMP
		if packet.HasPorts(d.Protocol) {
			first = fieldTruncatedPorts
		}
		second = first
	}
	return key{
		dimSrc:      t.src.class(d.Src),
		dimDst:      t.dst.class(d.Dst),
		dimFirst:    t.first[first],
		dimSecond:   t.second[second],
		dimProtocol: t.protocol[d.Protocol],
		dimVLAN:     t.vlan[d.VLANs().ID()],
		dimOrigin:   t.origin[originOf(d.From, d.Fragmented)],
	}
}
