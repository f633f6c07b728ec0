package fastpath

import (
	"time"

	"fragwall/packet"
)

// Numbers of entries by default: of a box, and of a sidecar, whose pod is charged
// for the memory.
const (
	Entries        = 65536
	SidecarEntries = 16384
)

// Options are what a fast path is made by.
type Options struct {
	// Entries is how many flows there may be at a time, and how many datagrams of
	// which fragments are on their way: a power of 2; 0 stands for [Entries].
	Entries int
	// Mode is what happens to fragments.
	Mode packet.Mode
	// Timeouts are how long a datagram may take to become whole, in IPv4 and IPv6.
	TimeoutIPv4, TimeoutIPv6 time.Duration
	MaxFragments             int  // of a datagram
	Stateful                 bool // the policy tracks flows
	AnyVLANs                 bool // a flow is the same in any VLAN
	Drops                    Drops
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
