package verdict

// Rule is the number of a rule in its policy, from 1 on in the policy's order.
// The zero Rule is none.
type Rule uint32
