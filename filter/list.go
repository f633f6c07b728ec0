package filter

import "fragwall/filter/flow"

// WalkFlows calls visit with a copy of each flow that is known, as [flow.Table.Walk]
// does.
func (t *Table) WalkFlows(now Clock, pause flow.Pause, visit flow.Visit) error {
	if t.flows == nil {
		return nil
	}
	return t.flows.Walk(now, pause, visit)
}

// DeleteFlows removes the flows that match, and returns how many, as
// [flow.Table.Delete] does.
func (t *Table) DeleteFlows(now Clock, pause flow.Pause, match flow.Match) (deleted int, err error) {
	if t.flows == nil {
		return 0, nil
	}
	return t.flows.Delete(now, pause, match)
}

// RuleOf returns the rule that a flow is judged by in this table, nil where the default
// decides, and whether it is denied. The flow is a copy that [Table.WalkFlows] lent.
func (t *Table) RuleOf(f *flow.Flow) (r *Rule, denied bool) {
	if f.Generation != t.generation {
		t.judgeAgain(f) // as the next datagram would have it
	}
	if f.Rule == none {
		return nil, f.Denied
	}
	return &t.policy.Rules[f.Rule], f.Denied
}
