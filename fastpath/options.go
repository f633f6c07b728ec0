package fastpath

import (
	"math/bits"
	"time"

	"fragwall/packet"
)

// Limits on entries: of a box, which is the default, and of a sidecar, whose pod is charged for
// the memory, some 600 bytes per entry.
const (
	Entries        = 65536
	SidecarEntries = 16384
)

// Options configure a fast path.
type Options struct {
	// Entries limits the number of concurrent flows, and the number of datagrams in fragments
	// that are being forwarded. It is rounded up to a power of 2; 0 means [Entries].
	Entries int
	Mode    packet.Mode // how fragments are handled
	// TimeoutIPv4 and TimeoutIPv6 limit the time until a datagram is complete.
	TimeoutIPv4, TimeoutIPv6 time.Duration
	MaxFragments             int // of one datagram
	Drops                    Drops
	// From is the fast path of the process that this one takes over from; nil if there is none.
	// The caller keeps its descriptors.
	From *Exported
}

// complete sets the defaults.
func (o *Options) complete() {
	if o.Entries == 0 {
		o.Entries = Entries
	}
	o.Entries = 1 << bits.Len(uint(o.Entries-1))
}

// Drops says how to drop the frames that a rule, the default action or the fragment mode drops.
type Drops uint8

const (
	// DropSampled drops them in the kernel, except for one per second and flow, which user
	// space gets for its events.
	DropSampled Drops = iota
	// DropSilently drops them in the kernel: no events are wanted.
	DropSilently
	// DropNone passes them up: an event is wanted for each.
	DropNone
)
