package rules

// Contract is every key of the configuration, by table, and Later what of it
// does not act yet.
var (
	Contract = contract
	Later    = later
)
