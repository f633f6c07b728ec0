package verdict

// Rule is the number of a rule in its policy, starting at 1. The zero Rule means none.
type Rule uint32
