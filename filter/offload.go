package filter

import (
	"time"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// SetOffload lets a fast path forward for the flows that the table tracks. It must be
// called before the table judges anything.
func (t *Table) SetOffload(o flow.Offload) {
	if t.flows != nil {
		t.flows.SetOffload(o)
	}
}

// Stateful reports whether the table tracks flows.
func (t *Table) Stateful() bool { return t.flows != nil }

// AnyVLANs reports whether the VLANs are not part of a flow's key.
func (t *Table) AnyVLANs() bool { return t.flows != nil && t.flows.AnyVLANs() }

// Generation returns the generation of the table's verdicts, starting at 1.
func (t *Table) Generation() uint32 { return t.generation }

// Counter returns the counter of a verdict's rule, for datagrams from a side, or nil if
// no rule decided.
func (t *Table) Counter(from verdict.Side, n verdict.Rule) *Counter {
	if n == 0 {
		return nil
	}
	return t.counters[from][n-1]
}

// Attach gives a slot of the fast path to the flow of a key, see [flow.Table.Attach]. A
// stateless table always agrees.
func (t *Table) Attach(k *flow.Key, slot uint32, now time.Duration) bool {
	return t.flows == nil || t.flows.Attach(k, t.generation, slot, now)
}

// Detach takes a slot of the fast path from the flow of a key, if the flow has it.
func (t *Table) Detach(k *flow.Key, slot uint32) {
	if t.flows != nil {
		t.flows.Detach(k, slot)
	}
}

// Known reports whether the table tracks a flow with a key.
func (t *Table) Known(k *flow.Key, now time.Duration) bool {
	return t.flows != nil && t.flows.Known(k, now)
}
