package tun

import (
	"encoding/json"
	"log/slog"
	"runtime"
)

// Config describes a port.
type Config struct {
	Name string
	MTU  int // bytes
	// Queues is the number of queues; 0 means one per CPU (GOMAXPROCS). All packets and
	// fragments between two addresses use the same queue. A port that cannot guarantee this
	// has one queue.
	Queues  int
	Offload bool // frames carry an [Offload]
	// Fragments is the number of fragments that can wait for the port's lanes outside the
	// port's queues, over all lanes; 0 means none. See [Port.Collect].
	Fragments int
}

// QueueCount returns the number of queues to open.
func (c *Config) QueueCount() int {
	if c.Queues == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return c.Queues
}

// Port is a device of one kind of frame I/O, through which frames arrive and leave. Call its
// methods on a thread in the network namespace in which it was opened. Its lanes work on any
// thread.
type Port interface {
	// Name returns the name of the device.
	Name() string
	// Index returns the interface index of the device in its network namespace.
	Index() int
	// Lanes makes the lanes from this port to another port of the same kind, one per queue of
	// this port. If one fails, it returns none.
	Lanes(to Port) ([]Lane, error)
	// Fallbacks returns the features that the kernel or a sandbox denied to the port and its
	// lanes.
	Fallbacks() []Fallback
	// Missed returns the number of frames that were dropped before a lane could read them,
	// because their queue was full.
	Missed() (frames uint64, err error)
	// SetMTU changes the MTU, in bytes.
	SetMTU(mtu int) error
	// SetJoined tells the port whether the frames that are written to it leave through a NIC.
	// If so, a lane may write all fragments of a datagram as one frame, which the kernel cuts
	// into the same fragments before the NIC. Without a NIC, the host's own stack would receive
	// the one frame, and a device that relays frames (netdev.Link) would not send the same
	// fragments.
	SetJoined(on bool)
	// Collect makes the fragments that arrive on a NIC, given by its interface index, reach the
	// lanes at less cost, past the port's device. All frames keep their order, both those that
	// pass through the device and those that do not. 0 stops this. Collect does nothing if the
	// port does not support it; Fallbacks then says so.
	Collect(nic int) error
	// Collected returns the number of fragments that reached the lanes in this way.
	Collected() uint64
	// SetCarrier turns the carrier of the device on or off.
	SetCarrier(on bool) error
	// Export returns what another process needs to take over the device.
	Export() (Exported, error)
	// Close closes the port. It removes the device unless another process has it, too. Open
	// lanes keep the device alive, so close them first. Closing again does nothing.
	Close() error
}

// Exported is what another process needs to take over a device.
type Exported struct {
	// Files are descriptors. They still belong to the port that exported them.
	Files []int `json:"-"`
	// State is JSON whose contents depend on the kind of port.
	State json.RawMessage `json:"state"`
}

// Fallback is a feature that a port works without.
type Fallback struct {
	// Level is Warn if the loss is large or the configuration asks for the feature, otherwise
	// Info.
	Level   slog.Level
	Message string // the consequence, for the log
	Err     error  // the cause
}
