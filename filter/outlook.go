package filter

import (
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Outlook is what a table would decide on a datagram at one moment.
type Outlook struct {
	Verdict Verdict
	Limits  []LimitLeft // of the matching rules, up to the one that decides
	// Flow is a copy of the flow with the datagram's key, nil if there is none. A segment
	// of TCP or SCTP also has to fit the connection.
	Flow *flow.Flow
}

// LimitLeft is the number of datagrams that a rule with a limit still matches at one
// moment.
type LimitLeft struct {
	Rule verdict.Rule
	Left int
}

// Outlook returns what [Table.Judge] would return for a datagram, given its 5-tuple. It
// counts nothing, uses up no limit, and begins no flow.
func (t *Table) Outlook(d *packet.View, now Clock) (o Outlook) {
	var fixed bool
	if o.Verdict, fixed = t.beforeRules(d); fixed {
		return o
	}
	if t.flows == nil {
		o.byRules(t, d, now)
		return o
	}
	f, known := t.flows.Find(d, now())
	if !known {
		o.byRules(t, d, now)
		return o
	}
	o.Flow = &f
	if f.Generation != t.generation {
		t.judgeAgain(&f)
	}
	origin, differs := d.From == f.Origin, d.Fragmented != f.Fragmented
	switch {
	case f.Denied && !origin:
		o.Verdict = Verdict{Generation: t.generation, Action: verdict.Drop, Reason: verdict.FlowDenied, Rule: number(f.Rule)}
	case origin && (differs || f.Denied || f.Rule != none && t.tree.rules[f.Rule].limited):
		o.byRules(t, d, now)
	case !origin && differs && o.deniesFragments(t, d, now):
	default:
		o.Verdict = t.passes(&f)
	}
	return o
}

// byRules sets the verdict of the rules.
func (o *Outlook) byRules(t *Table, d *packet.View, now Clock) {
	rule, over := o.match(t, t.tree.root, d, now)
	if rule != none {
		o.Verdict = t.verdictOf(rule, over, d)
		return
	}
	o.Verdict = t.fixed(t.policy.Default, verdict.PolicyDefault)
	o.Verdict.OverLimit = number(over)
}

// deniesFragments sets the verdict of a rule that denies a datagram of a flow because it
// arrived in fragments, or because it did not, as [Table.fragmentDenial] does.
func (o *Outlook) deniesFragments(t *Table, d *packet.View, now Clock) bool {
	if t.tree.fragments == emptyLeaf {
		return false
	}
	rule, over := o.match(t, t.tree.fragments, d, now)
	if rule == none || t.tree.rules[rule].action == verdict.Accept {
		return false
	}
	o.Verdict = t.verdictOf(rule, over, d)
	return true
}

// match is [Table.match] without using up limits.
func (o *Outlook) match(t *Table, root ref, d *packet.View, now Clock) (rule, over uint32) {
	k := t.key(d)
	rule, over = t.tree.search(root, &k, 0), none
	for rule != none && t.tree.rules[rule].limited {
		left := t.buckets[rule].Left(now())
		o.Limits = append(o.Limits, LimitLeft{number(rule), left})
		if left > 0 {
			break
		}
		if over == none {
			over = rule
		}
		rule = t.tree.search(root, &k, rule+1)
	}
	return rule, over
}
