package fastpath

import (
	"math/bits"
	"time"

	"fragwall/packet"
)

// Numbers of entries: of a box, which is the default, and of a sidecar, whose pod is
// charged for the memory, some 600 bytes an entry.
const (
	Entries        = 65536
	SidecarEntries = 16384
)

// Options are what a fast path is made by.
type Options struct {
	// Entries is how many flows there may be at a time, and how many datagrams of
	// which fragments are on their way. It is rounded up to a power of 2; 0 stands
	// for [Entries].
	Entries int
	Mode    packet.Mode // of fragments
	// TimeoutIPv4 and TimeoutIPv6 are how long a datagram may take to become whole.
	TimeoutIPv4, TimeoutIPv6 time.Duration
	MaxFragments             int // of a datagram
	Drops                    Drops
}

// complete sets the defaults.
func (o *Options) complete() {
	if o.Entries == 0 {
		o.Entries = Entries
	}
	o.Entries = 1 << bits.Len(uint(o.Entries-1))
}

// Drops says what becomes of the frames that a rule, the default or the mode of
// fragments drops.
type Drops uint8

const (
	// DropSampled drops them in the kernel, but for one a second of each flow,
	// which user space gets for its events.
	DropSampled Drops = iota
	// DropSilently drops them in the kernel: nobody wants events.
	DropSilently
	// DropNone leaves them to user space: an event is wanted of each.
	DropNone
)
