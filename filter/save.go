package filter

import (
	"time"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// SavedRule is what a rule has counted, and how far its limit is used up, as another
// process can take it over.
type SavedRule struct {
	Name   string
	Counts [verdict.Sides]Count // by the side that datagrams came in by
	Limit  Rate                 // the zero Rate where there is none
	Full   time.Duration        // when the whole limit is there again, on the policy's clock
}

// SaveRules returns what the rules have counted.
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

// RestoreRules returns what has rules go on, by their names, with what those of another
// process counted, and with the limits that are the same.
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

// FlowTable returns the table's flows; nil where it tracks none. They outlive the table.
func (t *Table) FlowTable() *flow.Table { return t.flows }
