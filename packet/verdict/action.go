package verdict

// Action is what becomes of a datagram. The zero Action drops it.
type Action uint8

// The actions.
const (
	Drop   Action = 0
	Accept Action = 1
	// Reject drops the datagram and has its sender told.
	Reject Action = 2
)

// String returns the action as the configuration spells it.
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	}
	return "drop"
}
