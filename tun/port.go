package tun

import (
	"encoding/json"
	"log/slog"
	"runtime"
)

// Config is what a port is to be.
type Config struct {
	Name string
	MTU  int // bytes
	// Queues is how many queues frames are spread over; 0 is one a processor. All
	// packets and fragments between two addresses go by the same queue; a port that
	// can't have it so gets one.
	Queues  int
	Offload bool // frames carry an [Offload]
	// Fragments is how many fragments can wait for the lanes in front of the port, all
	// together; 0 is none. See [Port.Collect].
	Fragments int
}

// QueueCount returns how many queues the port is to have.
func (c *Config) QueueCount() int {
	if c.Queues == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return c.Queues
}

// Port is a device of one kind of frame I/O, by which frames come in and go out.
// Its methods belong on a thread in the network namespace in which it was opened;
// its lanes work on any.
type Port interface {
	// Name is the device's.
	Name() string
	// Index is the device's in its network namespace.
	Index() int
	// Lanes makes the lanes from this port to another of its kind, one a queue of
	// this one: all or none.
	Lanes(to Port) ([]Lane, error)
	// Fallbacks says what the kernel or a sandbox did not let the port and its lanes
	// have.
	Fallbacks() []Fallback
	// Missed returns how many frames were dropped before a lane could read them:
	// their queue was full.
	Missed() (frames uint64, err error)
	// SetMTU changes the MTU, in bytes.
	SetMTU(mtu int) error
	// SetJoined says whether what is written to the port leaves by a NIC. The fragments
	// of a datagram may then be written as one frame, which the kernel cuts into the
	// same fragments in front of the NIC. A host's own stack would get the one frame,
	// and a device that relays frames (netdev.Link) would not send the same fragments.
	SetJoined(on bool)
	// Collect has the fragments that come in by a NIC, which is named by its index, reach
	// the lanes at less cost, without the port's device. Their order is the same, also
	// among the frames that go through the device. 0 ends that. It does nothing where the
	// port can't, which Fallbacks says.
	Collect(nic int) error
	// Collected returns how many fragments the lanes have got so.
	Collected() uint64
	// SetCarrier gives the port a carrier, or takes it.
	SetCarrier(on bool) error
	// Export returns what another process needs to go on with the device.
	Export() (Exported, error)
	// Close closes the port, and removes the device where no other process has it. Lanes that are still open keep it alive, so close
	// them first. Closing again does nothing.
	Close() error
}

// Exported is a device as another process can go on with it.
type Exported struct {
	// Files are descriptors, which stay those of the port that exports.
	Files []int `json:"-"`
	// State is what the kind of port wants to know, as JSON.
	State json.RawMessage `json:"state"`
}

// Fallback is one thing that a port does without.
type Fallback struct {
	// Level is Warn where it costs much, or where the configuration asks for what is
	// missing, else Info.
	Level   slog.Level
	Message string // the consequence, for the log
	Err     error  // the reason
}
