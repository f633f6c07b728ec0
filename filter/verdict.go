package filter

import "fragwall/packet/verdict"

// Verdict is what a policy decides of a datagram. The zero Verdict drops. It
// holds numbers alone, so that it can be an entry of a map; [Table.Rule] resolves
// those of rules.
type Verdict struct {
	Generation uint32       // of the policy that the rules are of; 0 where no policy decided
	Rule       verdict.Rule // that decided; 0 where none did
	// OverLimit is the first rule that matched but for its limit, which was
	// exceeded; 0 where there was none.
	OverLimit verdict.Rule
	Action    verdict.Action
	Reason    verdict.Reason // of a drop; [verdict.Passed] where Action is [verdict.Accept]
	Flags     Flags
}

// Flags say how a verdict came about.
type Flags uint8

const (
	// OfFlow: the datagram passed for the flow it belongs to; then Rule is the one
	// that let the flow begin.
	OfFlow Flags = 1 << iota
	// Logged: the rule matched the datagram itself, and asks for an event.
	Logged
	// Cacheable: nothing but the key of the datagram's flow, the side that it came in
	// by and whether it came in fragments decided. What is alike in these meets the
	// same verdict, as long as the policy is in force, and the flow stays as it is
	// where there is one.
	Cacheable
)

// Has reports whether a flag is set.
func (v Verdict) Has(f Flags) bool { return v.Flags&f != 0 }

// where returns the flag if it is to be set.
func (f Flags) where(on bool) Flags {
	if on {
		return f
	}
	return 0
}

// Rule returns the rule of a number; nil where that is 0. The number must be
// from a verdict of this table.
func (t *Table) Rule(n verdict.Rule) *Rule {
	if n == 0 {
		return nil
	}
	return &t.policy.Rules[n-1]
}

// number returns the number that verdicts have of the rule at an index, which
// may be none.
func number(rule uint32) verdict.Rule {
	if rule == none {
		return 0
	}
	return verdict.Rule(rule + 1)
}
