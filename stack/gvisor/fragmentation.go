package gvisor

import (
	"time"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/tcpip"
	_ "gvisor.dev/gvisor/pkg/tcpip/network/ipv4" // links the package into the program
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gVisor's reassembly is in package gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation,
// which only gVisor's IPv4 and IPv6 endpoints may import. An endpoint takes longer for a packet
// than the reassembly alone, so the linker binds the functions below to those of the package.
// TestFragmentationIsAsDeclared compares the declarations with the package's source.

// fragmentation is the package's Fragmentation: a set of incomplete datagrams.
type fragmentation struct{ _ int }

// fragmentID is the package's FragmentID.
type fragmentID struct {
	Source      tcpip.Address
	Destination tcpip.Address
	ID          uint32
	Protocol    uint8
}

// timeoutHandler is the package's TimeoutHandler.
type timeoutHandler interface {
	OnReassemblyTimeout(pkt *stack.PacketBuffer)
}

// newFragmentation is the package's NewFragmentation. The limits are in bytes.
//
//go:linkname newFragmentation gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.NewFragmentation
func newFragmentation(blockSize uint16, highMemoryLimit, lowMemoryLimit int, reassemblingTimeout time.Duration, clock tcpip.Clock, timeoutHandler timeoutHandler) *fragmentation

// process is the package's method Process. It returns the datagram if the fragment, bytes first
// to last inclusive, completed it.
//
//go:linkname process gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.(*Fragmentation).Process
func process(f *fragmentation, id fragmentID, first, last uint16, more bool, proto uint8, pkt *stack.PacketBuffer) (*stack.PacketBuffer, uint8, bool, error)

// release is the package's method Release.
//
//go:linkname release gvisor.dev/gvisor/pkg/tcpip/network/internal/fragmentation.(*Fragmentation).Release
func release(f *fragmentation)
