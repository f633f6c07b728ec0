package filter

import (
	"fragwall/filter/flow"
	"fragwall/packet"
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
//     other way round: all rules on what the origin sends, and on what the other
//     side sends those that ask about fragments.
//
// A flow that another policy accepted is first judged again by how it began.
func (t *Table) track(v *packet.View, clock Clock) Verdict {
	a, relation := t.flows.Open(v, clock())
	if relation == flow.Unrelated {
		verdict, _ := t.byRules(v, clock)
		return verdict
	}
	defer a.Close()
	f := a.Flow()
	if f != nil && f.Generation != t.generation {
		t.judgeAgain(f)
	}
	switch {
	case relation == flow.About:
		return t.about(v, f, clock)
	case f == nil:
		return t.begin(v, &a, clock)
	case f.Denied && v.From != f.Origin:
		a.Touch()
		return t.denied(v, f)
	}
	return t.member(v, f, &a, clock)
}

// begin judges by the rules what belongs to no flow.
func (t *Table) begin(v *packet.View, a *flow.Access, clock Clock) Verdict {
	verdict, rule := t.byRules(v, clock)
	if verdict.Action == Accept {
		a.Begin(v, t.policy.LooseTCP, rule, t.generation)
	}
	return verdict
}

// member judges a datagram that has the key of a flow.
func (t *Table) member(v *packet.View, f *flow.Flow, a *flow.Access, clock Clock) Verdict {
	verdict, judged := t.passes(f), true
	rule := f.Rule
	switch differs := v.Fragmented != f.Fragmented; {
	case v.From == f.Origin && (differs || f.Denied || rule != none && t.tree.boxes[rule].limited):
		if verdict, rule = t.byRules(v, clock); verdict.Action != Accept {
			if f.Denied {
				a.Touch()
			}
			return verdict
		}
		if f.Denied {
			f.Denied, f.Rule = false, rule
		}
	case v.From != f.Origin && differs:
		if denial, found := t.byFragmentRules(v, clock); found && denial.Action != Accept {
			return denial
		}
		judged = false
	default:
		judged = false
	}
	if a.Take(v) {
		if !judged && rule != none {
			t.count(rule, v)
		}
		return verdict
	}
	if !judged {
		verdict, rule = t.byRules(v, clock)
	}
	switch {
	case a.Flow() == nil: // it begins another one
		if verdict.Action == Accept {
			a.Begin(v, t.policy.LooseTCP, rule, t.generation)
		}
	case verdict.Action != Accept:
		// Not rejected: anybody can send it in the name of either host.
		verdict.Action, verdict.Reason = Drop, packet.FlowInvalid
	}
	return verdict
}

// passes returns the verdict on what belongs to a flow.
func (t *Table) passes(f *flow.Flow) Verdict {
	v := Verdict{Action: Accept, Flow: true}
	if f.Rule != none {
		v.Rule = &t.policy.Rules[f.Rule]
	}
	return v
}

// denied returns the verdict on what the other side sends of a flow that a
// later policy than its own denied.
func (t *Table) denied(v *packet.View, f *flow.Flow) Verdict {
	verdict := Verdict{Action: Drop, Reason: packet.FlowDenied}
	if f.Rule != none && t.tree.boxes[f.Rule].action != Accept {
		t.count(f.Rule, v)
		verdict.Rule = &t.policy.Rules[f.Rule]
	}
	return verdict
}

// judgeAgain judges a flow by the policy in force, as it began. A flow that
// was denied stays so until its origin's own datagram is accepted: the hosts
// have gone on without the box.
func (t *Table) judgeAgain(f *flow.Flow) {
	first := f.First()
	class := t.key(&first)
	f.Rule, f.Generation = t.tree.find(&class, 0), t.generation
	action := t.policy.Default
	if f.Rule != none {
		action = t.tree.boxes[f.Rule].action
	}
	f.Denied = f.Denied || action != Accept
}

// about judges an ICMP error by the flow that it is about.
func (t *Table) about(v *packet.View, f *flow.Flow, clock Clock) Verdict {
	if f == nil || f.Denied {
		verdict, _ := t.byRules(v, clock)
		return verdict
	}
	if f.Rule != none {
		t.count(f.Rule, v)
	}
	return t.passes(f)
}
