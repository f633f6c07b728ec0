package gvisor

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// neutralProtocol is the upper-layer protocol of the synthetic packets: one
// that gVisor knows nothing about, so that it hands the payload on untouched
// (RFC 3692 reserves 254 for experiments; gVisor reads 253 as an extension
// header).
const neutralProtocol = 254

// engineAddress is the engine's own address, and both source and destination of the
// synthetic packets (RFC 2544): gVisor looks up both, and finds none faster than one
// that it has.
const engineAddress = "\xc6\x12\x00\x01"

// Identifications of the synthetic packets.
const (
	engineDatagram = iota // of all datagrams, one after the other
	engineKept            // of a fragment that gVisor always holds, see [Engine.open]
)

// pieceSize is up to how many bytes neighbouring fragments go into gVisor as one
// piece. A piece costs it 1 µs, as much as to copy 16 KiB, and for each it looks
// through those that it has (pkg/tcpip/network/internal/fragmentation,
// reassembler.process), so that a datagram in fragments of 8 bytes would cost the
// square of 8,192 steps; of pieces there are nine at most.
const pieceSize = 16 << 10

// largePayload is from how many bytes on the payload of a packet costs less in a view
// of its own. gVisor clones each view of a packet up to three times, and copies the one
// with the header, since it holds that twice (pkg/buffer, Buffer.PullUp).
const largePayload = 4 << 10

// Engine puts fragments together with gVisor's IPv4 endpoint. It sees no packet
// of the wire: a datagram's fragments go in under synthetic headers, one right
// after the other, once all of them came, so that between two datagrams gVisor
// holds nothing of them. An Engine is not safe for concurrent use.
//
// The fragments of IPv6 datagrams go in under IPv4 headers, too: gVisor has one
// reassembly for both families (pkg/tcpip/network/internal/fragmentation), which
// takes up to 65,536 bytes of payload from either, and to get there by extension
// headers costs twice the time and three times the allocations.
type Engine struct {
	endpoint stack.NetworkEndpoint // by which fragments go in
	protocol stack.NetworkProtocol // which holds the fragments in waiting
	whole    *stack.PacketBuffer   // set by DeliverTransportPacket; ours to release
}

// engineStack is what endpoints ask for clocks, statistics and tables. It has
// neither NICs nor transport protocols, and no packet ever enters it, so that
// all engines can share one.
var engineStack = stack.New(stack.Options{Clock: frozenClock{}})

// NewEngine returns an engine; [Engine.Close] frees it.
func NewEngine() *Engine {
	e := &Engine{}
	e.open()
	return e
}

// open panics where gVisor refuses its own defaults: that is a mistake in the
// program, whatever the input.
func (e *Engine) open() {
	e.protocol = ipv4.NewProtocolWithOptions(ipv4.Options{})(engineStack)
	e.endpoint = e.protocol.NewEndpoint(engineNIC{}, e)
	if err := e.endpoint.Enable(); err != nil {
		panic(fmt.Sprintf("gvisor: enable endpoint: %v", err))
	}
	address := tcpip.AddrFromSlice([]byte(engineAddress)).WithPrefix()
	state, err := e.endpoint.(stack.AddressableEndpoint).AddAndAcquirePermanentAddress(address, stack.AddressProperties{})
	if err != nil {
		panic(fmt.Sprintf("gvisor: add address to endpoint: %v", err))
	}
	state.DecRef()
	// gVisor starts a timer for each fragment that comes while it holds none.
	kept, _ := newPacket(engineKept, 0, true, 8)
	e.feed(kept)
}

// Close frees what gVisor holds.
func (e *Engine) Close() {
	e.endpoint.Close()
	e.protocol.Close()
}

// Reassemble has gVisor put the fragments of a datagram together, which are in
// the order of their offsets. It reports false where gVisor does not find the
// datagram whole, with the last fragment and not before.
func (e *Engine) Reassemble(fragments []Fragment) (w Whole, ok bool) {
	for len(fragments) > 0 {
		n, size := nextPiece(fragments)
		whole := e.feed(newPiece(fragments[:n], size))
		fragments = fragments[n:]
		if whole != nil && len(fragments) == 0 {
			return Whole{whole}, true
		}
		if whole != nil {
			whole.DecRef()
			break
		}
	}
	e.Close() // frees what gVisor still holds
	e.open()
	return Whole{}, false
}

// Whole is the reassembled fragmentable part of a datagram. The zero Whole is
// none.
type Whole struct{ packet *stack.PacketBuffer }

// Size returns its length in bytes.
func (w Whole) Size() int { return w.packet.Data().Size() }

// Beginning returns its first n bytes, which stay valid until its release.
func (w Whole) Beginning(n int) []byte {
	b, _ := w.packet.Data().PullUp(n)
	return b
}

// Release frees it, where there is one.
func (w Whole) Release() {
	if w.packet != nil {
		w.packet.DecRef()
	}
}

// nextPiece returns how many of the fragments go in as one, with size bytes of
// payload: as many as fit, and at least one. The last fragment stays by itself, so
// that no datagram comes down to one piece, which gVisor would have nothing to do
// with.
func nextPiece(fragments []Fragment) (n, size int) {
	size = int(fragments[0].Length)
	for n = 1; n < len(fragments)-1 && size+int(fragments[n].Length) <= pieceSize; n++ {
		size += int(fragments[n].Length)
	}
	return n, size
}

// feed hands a packet to gVisor, and returns the datagram if that made it whole.
func (e *Engine) feed(packet buffer.Buffer) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: packet})
	pkt.RXChecksumValidated = true
	e.endpoint.HandlePacket(pkt)
	pkt.DecRef()
	whole := e.whole
	e.whole = nil
	return whole
}

// newPiece makes the packet that neighbouring fragments go in as: a synthetic
// header and a copy of their payload, size bytes.
func newPiece(fragments []Fragment, size int) buffer.Buffer {
	packet, payload := newPacket(engineDatagram, fragments[0].Start, fragments[len(fragments)-1].More, size)
	for i := range fragments {
		payload = payload[copy(payload, fragments[i].Data()):]
	}
	return packet
}

// newPacket makes a synthetic packet, and returns it with the place of its payload, size
// bytes.
func newPacket(id, offset uint16, more bool, size int) (packet buffer.Buffer, payload []byte) {
	withHeader := size
	if size >= largePayload {
		withHeader = 0
	}
	v := buffer.NewViewSize(header.IPv4MinimumSize + withHeader)
	packet = buffer.MakeWithView(v)
	b := v.AsSlice()
	b[0] = header.IPv4Version<<4 | header.IPv4MinimumSize/4
	binary.BigEndian.PutUint16(b[2:], uint16(header.IPv4MinimumSize+size))
	binary.BigEndian.PutUint16(b[4:], id)
	field := offset / 8
	if more {
		field |= header.IPv4FlagMoreFragments << 13
	}
	binary.BigEndian.PutUint16(b[6:], field)
	b[8] = 1 // TTL
	b[9] = neutralProtocol
	copy(b[12:], engineAddress)
	copy(b[16:], engineAddress)
	if withHeader == size {
		return packet, b[header.IPv4MinimumSize:]
	}
	v = buffer.NewViewSize(size)
	own := buffer.MakeWithView(v)
	packet.Merge(&own)
	return packet, v.AsSlice()
}

var _ stack.TransportDispatcher = (*Engine)(nil)

// DeliverTransportPacket gets reassembled datagrams alone.
func (e *Engine) DeliverTransportPacket(_ tcpip.TransportProtocolNumber, pkt *stack.PacketBuffer) stack.TransportPacketDisposition {
	e.whole = pkt.IncRef()
	return stack.TransportPacketHandled
}

func (*Engine) DeliverTransportError(_, _ tcpip.Address, _ tcpip.NetworkProtocolNumber, _ tcpip.TransportProtocolNumber, _ stack.TransportError, _ *stack.PacketBuffer) {
}

func (*Engine) DeliverRawPacket(tcpip.TransportProtocolNumber, *stack.PacketBuffer) {}

// engineNIC is the network interface of the endpoints: enabled, and unable to
// send. It is a loopback interface: gVisor checks the packets of any other against
// rules that there are none of here.
type engineNIC struct{ stack.NetworkLinkEndpoint }

func (engineNIC) ID() tcpip.NICID                                                   { return 1 }
func (engineNIC) Name() string                                                      { return "" }
func (engineNIC) IsLoopback() bool                                                  { return true }
func (engineNIC) Enabled() bool                                                     { return true }
func (engineNIC) Promiscuous() bool                                                 { return false }
func (engineNIC) Spoofing() bool                                                    { return false }
func (engineNIC) MTU() uint32                                                       { return math.MaxUint16 }
func (engineNIC) MaxHeaderLength() uint16                                           { return 0 }
func (engineNIC) LinkAddress() tcpip.LinkAddress                                    { return "" }
func (engineNIC) CheckLocalAddress(tcpip.NetworkProtocolNumber, tcpip.Address) bool { return false }
func (engineNIC) PrimaryAddress(tcpip.NetworkProtocolNumber) (tcpip.AddressWithPrefix, tcpip.Error) {
	return tcpip.AddressWithPrefix{}, &tcpip.ErrNotSupported{}
}
func (engineNIC) WritePacketToRemote(tcpip.LinkAddress, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) WritePacket(*stack.Route, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) HandleNeighborProbe(tcpip.NetworkProtocolNumber, tcpip.Address, tcpip.LinkAddress) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) HandleNeighborConfirmation(tcpip.NetworkProtocolNumber, tcpip.Address, tcpip.LinkAddress, stack.ReachabilityConfirmationFlags) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}

// frozenClock stands still: time is the table's.
type frozenClock struct{}

func (frozenClock) Now() time.Time                              { return time.Unix(0, 0) }
func (frozenClock) NowMonotonic() tcpip.MonotonicTime           { return tcpip.MonotonicTime{} }
func (frozenClock) AfterFunc(time.Duration, func()) tcpip.Timer { return frozenTimer{} }

// frozenTimer never fires.
type frozenTimer struct{}

func (frozenTimer) Stop() bool          { return true }
func (frozenTimer) Reset(time.Duration) {}
