package filter

import (
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// track judges a datagram by the flows, and by the rules if it belongs to no flow:
//
//  1. A datagram of a known flow passes, and so does an ICMP error about one.
//  2. The rules judge any other. If they accept it, it begins a flow.
//
// The rules decide again on a datagram of a flow
//
//   - from the originator, if the rule of the flow has a limit;
//   - from the originator, if it arrived in fragments and the flow's first datagram did not,
//     or the other way round;
//   - from the responder, or if it is an ICMP error, with the same difference: but only the
//     rules with a fragmented field, unless an earlier rule accepts the datagram.
//
// A flow that an earlier policy accepted is first judged by the policy in force.
func (t *Table) track(d *packet.View, clock Clock) Verdict {
	var a flow.Access
	relation := t.flows.Open(&a, d, clock())
	if relation == flow.Unrelated {
		v, _ := t.byRules(d, clock)
		v.Flags &^= Cacheable
		return v
	}
	defer a.Close()
	f := a.Flow()
	if f != nil && f.Generation != t.generation {
		t.judgeAgain(f)
		if f.Denied {
			a.Release()
		}
	}
	switch {
	case relation == flow.About:
		return t.about(d, f, clock)
	case f == nil:
		return t.begin(d, &a, clock)
	case f.Denied && d.From != f.Origin:
		a.Touch()
		return t.denied(d, f)
	}
	return t.member(d, f, &a, clock)
}

// begin judges a datagram that belongs to no flow by the rules.
func (t *Table) begin(d *packet.View, a *flow.Access, clock Clock) Verdict {
	v, rule := t.byRules(d, clock)
	if v.Action == verdict.Accept {
		v.Flags &^= Cacheable
		a.Begin(d, t.policy.LooseTCP, rule, t.generation)
	}
	v.Flags &^= t.ofVLANs
	return v
}

// member judges a datagram with the key of a flow.
func (t *Table) member(d *packet.View, f *flow.Flow, a *flow.Access, clock Clock) Verdict {
	v, judged := t.passes(f), true
	v.Flags |= Cacheable
	rule := f.Rule
	switch differs := d.Fragmented != f.Fragmented; {
	case d.From == f.Origin && (differs || f.Denied || rule != none && t.tree.rules[rule].limited):
		if v, rule = t.byRules(d, clock); v.Action != verdict.Accept {
			if f.Denied {
				a.Touch()
			}
			v.Flags &^= Cacheable
			return v
		}
		v.Flags &^= t.ofVLANs
		if f.Denied && !differs {
			f.Denied, f.Rule = false, rule
		}
	case d.From != f.Origin && differs:
		denial, denied := t.fragmentDenial(d, clock)
		if denied {
			return denial
		}
		if !denial.Has(Cacheable) {
			v.Flags &^= Cacheable
		}
		judged = false
	default:
		judged = false
	}
	if a.Take(d) {
		if !judged && rule != none {
			t.count(rule, d)
		}
		if !f.Offloadable() {
			v.Flags &^= Cacheable
		}
		return v
	}
	if !judged {
		v, rule = t.byRules(d, clock)
	}
	v.Flags &^= Cacheable
	switch {
	case a.Flow() == nil: // it begins another flow
		if v.Action == verdict.Accept {
			a.Begin(d, t.policy.LooseTCP, rule, t.generation)
		}
	case v.Action != verdict.Accept:
		// Not rejected, because anybody can send it in the name of either host.
		v.Action, v.Reason = verdict.Drop, verdict.FlowInvalid
	}
	return v
}

// passes returns the verdict on a datagram that belongs to a flow.
func (t *Table) passes(f *flow.Flow) Verdict {
	return Verdict{Generation: t.generation, Action: verdict.Accept, Flags: OfFlow, Rule: number(f.Rule)}
}

// denied returns the verdict on a datagram of the responder, if a later policy denied the
// flow.
func (t *Table) denied(d *packet.View, f *flow.Flow) Verdict {
	v := Verdict{Generation: t.generation, Action: verdict.Drop, Reason: verdict.FlowDenied}
	if f.Rule != none && t.tree.rules[f.Rule].action != verdict.Accept {
		t.count(f.Rule, d)
		v.Rule, v.Flags = number(f.Rule), t.tree.rules[f.Rule].flags&Logged
	}
	return v
}

// judgeAgain judges a flow by the policy in force, by its first datagram. A denied flow
// stays denied until a datagram of its originator is accepted, because the hosts may have
// continued without fragwall. While a reload replaces the table, a lane may still judge
// by the old one, which denies nothing that the new one accepted.
func (t *Table) judgeAgain(f *flow.Flow) {
	newer := int32(t.generation-f.Generation) > 0
	var action verdict.Action
	f.Rule, action = t.decides(f)
	f.Generation = t.generation
	f.Denied = f.Denied || newer && action != verdict.Accept
}

// decides returns the rule that decides on a flow's first datagram, or none, and the
// action.
func (t *Table) decides(f *flow.Flow) (rule uint32, a verdict.Action) {
	var p packet.Parsed
	first := f.First(&p)
	class := t.key(&first)
	if rule = t.tree.find(&class, 0); rule != none {
		return rule, t.tree.rules[rule].action
	}
	return none, t.policy.Default
}

// about judges an ICMP error about a flow.
func (t *Table) about(d *packet.View, f *flow.Flow, clock Clock) Verdict {
	if f == nil || f.Denied {
		v, _ := t.byRules(d, clock)
		v.Flags &^= Cacheable
		return v
	}
	if d.Fragmented != f.Fragmented {
		if denial, denied := t.fragmentDenial(d, clock); denied {
			return denial
		}
	}
	if f.Rule != none {
		t.count(f.Rule, d)
	}
	return t.passes(f)
}
