package packettest

import (
	"time"

	"fragwall/packet/verdict"
)

// Arrival is one frame of a case: what comes, by which side, and when.
type Arrival struct {
	At   time.Duration // since the case began
	From verdict.Side
	Data []byte
}

// Arrivals returns frames that come by one side, all at once.
func Arrivals(at time.Duration, from verdict.Side, frames ...[]byte) []Arrival {
	var a []Arrival
	for _, f := range frames {
		a = append(a, Arrival{at, from, f})
	}
	return a
}
