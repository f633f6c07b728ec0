package rules

// Contract is every key of the configuration, by table, and Top those of none.
var (
	Contract = contract
	Top      = top
)
