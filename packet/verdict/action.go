package verdict

// Action is what happens to a datagram. The zero Action drops it.
type Action uint8

// The actions.
const (
	Drop   Action = 0
	Accept Action = 1
	// Reject drops the datagram and notifies its sender.
	Reject Action = 2
)

// String returns the name of the action in the configuration.
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	}
	return "drop"
}
