package filter

import "fragwall/filter/flow"

// WalkFlows calls visit with a copy of each known flow, as [flow.Table.Walk] does.
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

// RuleOf returns the rule that accepts a flow in this table, nil if the default decides,
// and whether the flow is denied. The flow is a copy from [Table.WalkFlows].
func (t *Table) RuleOf(f *flow.Flow) (r *Rule, denied bool) {
	if f.Generation != t.generation {
		t.judgeAgain(f) // as the flow's next datagram would be
	}
	if f.Rule == none {
		return nil, f.Denied
	}
	return &t.policy.Rules[f.Rule], f.Denied
}
