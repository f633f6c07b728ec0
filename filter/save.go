package filter

import (
	"time"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// SavedRule is the counters of a rule and the fill of its limit, in the form in which another
// process can take them over.
type SavedRule struct {
	Name   string
	Counts [verdict.Sides]Count // by ingress side
	Limit  Rate                 // the zero Rate if there is none
	Full   time.Duration        // when the limit is full again, on the policy's clock
}

// SaveRules returns the counters and limits of all rules.
func (t *Table) SaveRules() []SavedRule {
	rules := make([]SavedRule, len(t.policy.Rules))
	for i := range rules {
		r := &t.policy.Rules[i]
		rules[i] = SavedRule{Name: r.Name, Limit: r.Limit}
		for side := range t.counters {
			rules[i].Counts[side] = t.counters[side][i].count()
		}
		if b := t.buckets[i]; b != nil {
			rules[i].Full = b.Full()
		}
	}
	return rules
}

// RestoreRules returns a function that adds the counters of another process's rules to the
// rules with the same names. It also restores the fill of limits that are equal.
func (t *Table) RestoreRules() (restore func(rules []SavedRule, now time.Duration)) {
	index := make(map[string]int, len(t.policy.Rules))
	for i := range t.policy.Rules {
		index[t.policy.Rules[i].Name] = i
	}
	return func(rules []SavedRule, now time.Duration) {
		for _, r := range rules {
			i, known := index[r.Name]
			if !known {
				continue
			}
			for side, n := range r.Counts {
				t.counters[side][i].addCount(n)
			}
			if b := t.buckets[i]; b != nil && r.Limit == t.policy.Rules[i].Limit {
				b.Restore(r.Full, now)
			}
		}
	}
}

func (c *Counter) count() Count {
	return Count{c.datagrams.Load(), c.bytes.Load(), c.overLimit.Load()}
}

func (c *Counter) addCount(n Count) {
	c.Add(n.Datagrams, n.Bytes)
	c.overLimit.Add(n.OverLimit)
}

// FlowTable returns the table's flows, which outlive the table, or nil if it tracks none.
func (t *Table) FlowTable() *flow.Table { return t.flows }
