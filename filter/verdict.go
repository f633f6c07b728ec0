package filter

import "fragwall/packet/verdict"

// Verdict is the decision of a policy on a datagram. The zero Verdict drops. It has only
// numbers, so that it can be stored in a map; [Table.Rule] resolves the numbers of rules.
type Verdict struct {
	Generation uint32       // generation of the policy; 0 if no policy decided
	Rule       verdict.Rule // the rule that decided; 0 if none did
	// OverLimit is the first rule that matched beyond its limit, 0 if there was none.
	OverLimit verdict.Rule
	Action    verdict.Action
	Reason    verdict.Reason // of a drop or a reject; [verdict.Passed] if Action is [verdict.Accept]
	Flags     Flags
}

// Flags tell how a verdict came about.
type Flags uint8

const (
	// OfFlow: the datagram passed because it belongs to a flow. Rule is the one that
	// accepted the flow's first datagram.
	OfFlow Flags = 1 << iota
	// Logged: the rule matched the datagram itself, and logs an event.
	Logged
	// Cacheable: the decision depended only on the key of the datagram's flow, its side,
	// and whether it arrived in fragments. Datagrams that are equal in these get the same
	// verdict, as long as the policy is in force and the flow, if there is one, stays as
	// it is.
	Cacheable
)

// Has reports whether a flag is set.
func (v Verdict) Has(f Flags) bool { return v.Flags&f != 0 }

// where returns the flag if on is set, otherwise 0.
func (f Flags) where(on bool) Flags {
	if on {
		return f
	}
	return 0
}

// Rule returns the rule with a number from a verdict of this table, nil for 0.
func (t *Table) Rule(n verdict.Rule) *Rule {
	if n == 0 {
		return nil
	}
	return &t.policy.Rules[n-1]
}

// number returns the number of the rule with an index, in verdicts. The index may be
// none.
func number(rule uint32) verdict.Rule {
	if rule == none {
		return 0
	}
	return verdict.Rule(rule + 1)
}
