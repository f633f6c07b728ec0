package gvisor

import (
	"time"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/tcpip"
	_ "gvisor.dev/gvisor/pkg/tcpip/network/ipv4" // which brings the package along
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gVisor's reassembly is the package gvisor.dev/gvisor/pkg/tcpip/network/internal/
// fragmentation, which gVisor's IPv4 and IPv6 endpoints alone may import. An endpoint takes
// longer for a packet than the reassembly does, so the linker binds the functions below
// to those of the package. TestFragmentationIsAsDeclared holds the declarations to it.

// fragmentation is the package's Fragmentation: datagrams of which fragments came.
type fragmentation struct{ _ int }

// fragmentID is its FragmentID.
type fragmentID struct {
	Source      tcpip.Address
	Destination tcpip.Address
	ID          uint32
	Protocol    uint8
}

// timeoutHandler is its TimeoutHandler.
type timeoutHandler interface {
	OnReassemblyTimeout(pkt *stack.PacketBuffer)
}

// newFragmentation is its NewFragmentation. The limits are in bytes.
//
//go:linkname newFragmentation gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.NewFragmentation
func newFragmentation(blockSize uint16, highMemoryLimit, lowMemoryLimit int, reassemblingTimeout time.Duration, clock tcpip.Clock, timeoutHandler timeoutHandler) *fragmentation

// process is its method Process. It returns the datagram if the fragment from first to
// last, both included, made that whole.
//
//go:linkname process gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.(*Fragmentation).Process
func process(f *fragmentation, id fragmentID, first, last uint16, more bool, proto uint8, pkt *stack.PacketBuffer) (*stack.PacketBuffer, uint8, bool, error)

// release is its method Release.
//
//go:linkname release gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.(*Fragmentation).Release
func release(f *fragmentation)
