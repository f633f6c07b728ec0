package filter

import (
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// DropsSourceRoutes reports whether packets with a source route are dropped. Callers
// check it for every packet and every fragment, before Judge.
func (t *Table) DropsSourceRoutes() bool { return t.policy.SourceRoute != verdict.Accept }

// Judge returns the verdict on a datagram. It reads the clock if a rule with a limit
// matches, and if the policy is stateful.
func (t *Table) Judge(d *packet.View, now Clock) Verdict {
	if v, ok := t.beforeRules(d); ok {
		return v
	}
	if t.flows != nil {
		return t.track(d, now)
	}
	v, _ := t.byRules(d, now)
	return v
}

// beforeRules returns the verdict on frames that no rule decides; ok is false for all
// others.
func (t *Table) beforeRules(d *packet.View) (v Verdict, ok bool) {
	switch {
	case d.Kind == packet.ARP:
		return t.fixed(t.policy.ARP, verdict.PolicyARP), true
	case d.Kind == packet.NonIP:
		return t.fixed(t.policy.NonIP, verdict.PolicyNonIP), true
	case d.NeighborDiscovery():
		return t.fixed(t.policy.NeighborDiscovery, verdict.PolicyNeighborDiscovery), true
	}
	return v, false
}

// byRules returns the verdict of the first rule that matches, and its number. If there is
// none, it returns the default's verdict, and none.
func (t *Table) byRules(d *packet.View, now Clock) (Verdict, uint32) {
	rule, over := t.match(t.tree.root, d, now)
	if rule == none {
		v := t.byDefault
		if over != none {
			v.OverLimit, v.Flags = number(over), 0
		}
		return v, none
	}
	return t.decide(rule, over, d), rule
}

// fragmentDenial returns the verdict of the rule that denies a datagram of a flow, or an
// ICMP error about one, because it arrived in fragments, or because it did not. It
// considers the rules that accept and the rules with a fragmented field. It reports false
// if the first match accepts, or if there is none; then the verdict only says whether
// that is cacheable.
func (t *Table) fragmentDenial(d *packet.View, now Clock) (v Verdict, denied bool) {
	if t.tree.fragments == emptyLeaf {
		v.Flags = Cacheable
		return v, false
	}
	rule, over := t.match(t.tree.fragments, d, now)
	if rule == none || t.tree.rules[rule].action == verdict.Accept {
		v.Flags = Cacheable.where(over == none && (rule == none || !t.tree.rules[rule].limited)) &^ t.ofVLANs
		return v, false
	}
	v = t.decide(rule, over, d)
	v.Flags &^= Cacheable
	return v, true
}

// match returns the first rule below a root of the tree that matches, and the first rule
// before it that matched beyond its limit; none if there is none.
func (t *Table) match(root ref, d *packet.View, now Clock) (rule, over uint32) {
	k := t.key(d)
	rule, over = t.tree.search(root, &k, 0), none
	for rule != none && t.tree.rules[rule].limited && !t.buckets[rule].Take(now()) {
		t.counters[d.From][rule].overLimit.Add(1)
		if over == none {
			over = rule
		}
		rule = t.tree.search(root, &k, rule+1)
	}
	return rule, over
}

// decide returns the verdict of a rule that matches, and counts the datagram.
func (t *Table) decide(rule, over uint32, d *packet.View) Verdict {
	t.count(rule, d)
	return t.verdictOf(rule, over, d)
}

// verdictOf returns the verdict of a rule that matches.
func (t *Table) verdictOf(rule, over uint32, d *packet.View) Verdict {
	r := &t.tree.rules[rule]
	v := t.fixed(r.action, verdict.PolicyRule)
	v.Rule, v.OverLimit, v.Flags = number(rule), number(over), r.flags
	if over != none {
		v.Flags &^= Cacheable
	}
	if d.Transport == packet.Truncated && r.needs&needed(d.Protocol) != 0 {
		v.Action, v.Reason = verdict.Drop, verdict.TransportTruncated
		v.Flags &^= Cacheable
	}
	return v
}

// count counts a datagram of a rule.
func (t *Table) count(rule uint32, d *packet.View) {
	t.counters[d.From][rule].Add(1, uint64(d.Length()))
}

// fixed returns the verdict of an action that is not from a rule, with its reason.
func (t *Table) fixed(a verdict.Action, why verdict.Reason) Verdict {
	if a == verdict.Accept {
		why = verdict.Passed
	}
	return Verdict{Generation: t.generation, Action: a, Reason: why}
}

// needed returns what is missing in a datagram of the protocol with a truncated transport
// header.
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
