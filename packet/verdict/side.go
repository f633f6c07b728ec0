package verdict

// Side is the side of the wire that a frame arrived on.
type Side uint8

// The two sides of the wire.
const (
	Inside  Side = 0
	Outside Side = 1
)

// Sides is the number of sides; a Side indexes an array of that length.
const Sides = 2

// Other returns the side that a frame from s leaves on.
func (s Side) Other() Side { return s ^ 1 }

// String returns the name of the side in the configuration.
func (s Side) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}
