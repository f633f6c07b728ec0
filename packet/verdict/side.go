package verdict

// Side is the side of the wire that a frame came in by.
type Side uint8

// The two sides of the wire.
const (
	Inside  Side = 0
	Outside Side = 1
)

// Sides is how many sides a wire has; a Side indexes an array of that length.
const Sides = 2

// Other returns the side that a frame from s leaves by.
func (s Side) Other() Side { return s ^ 1 }

// String returns the side's name as the configuration spells it.
func (s Side) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}
