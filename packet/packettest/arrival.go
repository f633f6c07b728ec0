package packettest

import (
	"time"

	"fragwall/packet/verdict"
)

// Arrival is one frame of a test case: its contents, its side and its time.
type Arrival struct {
	At   time.Duration // since the case began
	From verdict.Side
	Data []byte
}

// Arrivals returns frames that arrive on one side, all at once.
func Arrivals(at time.Duration, from verdict.Side, frames ...[]byte) []Arrival {
	var a []Arrival
	for _, f := range frames {
		a = append(a, Arrival{at, from, f})
	}
	return a
}
