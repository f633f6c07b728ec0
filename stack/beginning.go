package stack

import "time"

// Beginning is a part of a datagram, from its first byte on, that was accepted and
// went on without the table's doing.
type Beginning struct {
	Bytes int       // of the fragmentable part
	Unit  int       // bytes: the length of each of its fragments; a part of Bytes, and a multiple of 8
	First time.Time // when the first fragment came
}
