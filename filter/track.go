package filter

import (
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// track judges by the flows, and by the rules what belongs to none:
//
//  1. a datagram of a known flow passes, as does an ICMP error about one;
//  2. any other is judged by the rules, and begins a flow if they accept it.
//
// The rules decide again on datagrams of a flow
//
//   - that its origin sends, where the flow's rule has a limit;
//   - that came in fragments where the flow's first datagram did not, or the
//     other way round: all rules on what the origin sends; on what the other side
//     sends, and on ICMP errors, those that ask about fragments, unless one in
//     front accepts.
//
// A flow that another policy accepted is first judged again by how it began.
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

// begin judges by the rules what belongs to no flow.
func (t *Table) begin(d *packet.View, a *flow.Access, clock Clock) Verdict {
	v, rule := t.byRules(d, clock)
	if v.Action == verdict.Accept {
		v.Flags &^= Cacheable
		a.Begin(d, t.policy.LooseTCP, rule, t.generation)
	}
	v.Flags &^= t.ofVLANs
	return v
}

// member judges a datagram that has the key of a flow.
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
	case a.Flow() == nil: // it begins another one
		if v.Action == verdict.Accept {
			a.Begin(d, t.policy.LooseTCP, rule, t.generation)
		}
	case v.Action != verdict.Accept:
		// Not rejected: anybody can send it in the name of either host.
		v.Action, v.Reason = verdict.Drop, verdict.FlowInvalid
	}
	return v
}

// passes returns the verdict on what belongs to a flow.
func (t *Table) passes(f *flow.Flow) Verdict {
	return Verdict{Generation: t.generation, Action: verdict.Accept, Flags: OfFlow, Rule: number(f.Rule)}
}

// denied returns the verdict on what the other side sends of a flow that a
// later policy than its own denied.
func (t *Table) denied(d *packet.View, f *flow.Flow) Verdict {
	v := Verdict{Generation: t.generation, Action: verdict.Drop, Reason: verdict.FlowDenied}
	if f.Rule != none && t.tree.rules[f.Rule].action != verdict.Accept {
		t.count(f.Rule, d)
		v.Rule, v.Flags = number(f.Rule), t.tree.rules[f.Rule].flags&Logged
	}
	return v
}

// judgeAgain judges a flow by the policy in force, as it began. A flow that
// was denied stays so until its origin's own datagram is accepted: the hosts
// have gone on without fragwall. While a reload swaps tables, a lane may still
// judge by the older one, which denies nothing that the newer one accepted.
func (t *Table) judgeAgain(f *flow.Flow) {
	newer := int32(t.generation-f.Generation) > 0
	var action verdict.Action
	f.Rule, action = t.decides(f)
	f.Generation = t.generation
	f.Denied = f.Denied || newer && action != verdict.Accept
}

// decides returns the rule that decides on a flow as it began, or none, and the
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

// about judges an ICMP error by the flow that it is about.
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
