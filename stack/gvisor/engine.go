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
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"fragwall/packet"
)

// neutralProtocol is the upper-layer protocol of the synthetic packets: one
// that gVisor knows nothing about, so that it hands the payload on untouched
// (RFC 3692 reserves 254 for experiments; gVisor reads 253 as an extension
// header).
const neutralProtocol = 254

// Addresses of the synthetic packets (RFC 2544 and RFC 4193). The destination
// is the engine's own.
const (
	engineSourceIPv4 = "\xc6\x12\x00\x02"
	engineLocalIPv4  = "\xc6\x12\x00\x01"
	enginePrefixIPv6 = "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	engineSourceIPv6 = enginePrefixIPv6 + "\x02"
	engineLocalIPv6  = enginePrefixIPv6 + "\x01"
)

// pieceSize is up to how many bytes neighbouring fragments go into gVisor as
// one piece. A piece costs it 0.7 µs, and for each it looks through those that
// it has (pkg/tcpip/network/internal/fragmentation, reassembler.process), so
// that a datagram in fragments of 8 bytes would cost the square of 8,192 steps;
// of pieces there are nine at most.
const pieceSize = 16 << 10

// joinSize is up to how many bytes neighbouring fragments are copied together.
// Larger ones stay where they are.
const joinSize = 1024

// Engine puts fragments together with gVisor's IPv4 and IPv6 endpoints. It
// sees no packet of the wire: a datagram's fragments go in under synthetic
// headers, one right after the other, once all of them came, so that between
// two datagrams gVisor holds nothing. An Engine is not safe for concurrent
// use.
type Engine struct {
	ipv4, ipv6 endpoint
	whole      *stack.PacketBuffer // set by DeliverTransportPacket; ours to release
}

// endpoint is one family's protocol instance, which holds the fragments in
// waiting, and the endpoint by which they go in.
type endpoint struct {
	stack.NetworkEndpoint
	protocol stack.NetworkProtocol
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

func (e *Engine) open() {
	e.ipv4 = e.newEndpoint(ipv4.NewProtocolWithOptions(ipv4.Options{}), engineLocalIPv4)
	e.ipv6 = e.newEndpoint(ipv6.NewProtocolWithOptions(ipv6.Options{}), engineLocalIPv6)
}

// newEndpoint panics where gVisor refuses its own defaults: that is a mistake
// in the program, whatever the input.
func (e *Engine) newEndpoint(factory stack.NetworkProtocolFactory, local string) endpoint {
	p := factory(engineStack)
	ep := endpoint{NetworkEndpoint: p.NewEndpoint(engineNIC{}, e), protocol: p}
	if err := ep.Enable(); err != nil {
		panic(fmt.Sprintf("gvisor: enable endpoint: %v", err))
	}
	address := tcpip.AddrFromSlice([]byte(local)).WithPrefix()
	state, err := ep.NetworkEndpoint.(stack.AddressableEndpoint).AddAndAcquirePermanentAddress(address, stack.AddressProperties{})
	if err != nil {
		panic(fmt.Sprintf("gvisor: add address to endpoint: %v", err))
	}
	state.DecRef()
	return ep
}

// Close frees what gVisor holds.
func (e *Engine) Close() {
	for _, ep := range []endpoint{e.ipv4, e.ipv6} {
		ep.Close()
		ep.protocol.Close()
	}
}

// Reassemble has gVisor put fragments together that are in the order of their
// offsets, of a datagram of the given kind, IPv4 or IPv6. It reports false where
// gVisor does not find the datagram whole, with the last fragment and not before.
func (e *Engine) Reassemble(kind packet.Kind, fragments []Fragment) (w Whole, ok bool) {
	for len(fragments) > 0 {
		p, n := nextPiece(kind, fragments)
		fragments = fragments[n:]
		whole := e.feed(&p)
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

// piece is what gVisor takes for a fragment.
type piece struct {
	kind   packet.Kind
	offset int // bytes
	more   bool
	data   buffer.Buffer
}

// nextPiece returns the piece that the first n of the fragments make. The last
// fragment stays by itself, so that no datagram comes down to one piece, which
// gVisor would have nothing to do with.
func nextPiece(kind packet.Kind, fragments []Fragment) (p piece, n int) {
	p = piece{kind: kind, offset: int(fragments[0].Start)}
	rest := fragments[:max(1, len(fragments)-1)]
	for n < len(rest) {
		room := pieceSize - int(p.data.Size())
		if n > 0 && int(rest[n].Length) > room {
			break
		}
		v, joined := join(rest[n:], min(room, joinSize))
		part := buffer.MakeWithView(v)
		p.data.Merge(&part)
		n += joined
	}
	p.more = fragments[n-1].More
	return p, n
}

// join returns the payload of the first n of the fragments: of one, or of as
// many as fit into room bytes.
func join(fragments []Fragment, room int) (v *buffer.View, n int) {
	size := int(fragments[0].Length)
	for n = 1; n < len(fragments) && size+int(fragments[n].Length) <= room; n++ {
		size += int(fragments[n].Length)
	}
	if n == 1 {
		return fragments[0].view(), 1
	}
	v = buffer.NewView(size)
	for i := range fragments[:n] {
		write(v, fragments[i].Data())
	}
	return v, n
}

// feed hands a piece to gVisor, which takes over its data, and returns the
// datagram if that made it whole.
func (e *Engine) feed(p *piece) *stack.PacketBuffer {
	ep, head := e.ipv4, (*buffer.View)(nil)
	number := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if p.kind == packet.IPv6 {
		ep, number = e.ipv6, header.IPv6ProtocolNumber
		head = p.headerIPv6()
	} else {
		head = p.headerIPv4()
	}
	data := buffer.MakeWithView(head)
	data.Merge(&p.data)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
	pkt.NetworkProtocolNumber = number
	pkt.RXChecksumValidated = true
	ep.HandlePacket(pkt)
	pkt.DecRef()
	whole := e.whole
	e.whole = nil
	return whole
}

// headerIPv4 makes the synthetic header in front of a piece.
func (p *piece) headerIPv4() *buffer.View {
	v := buffer.NewViewSize(header.IPv4MinimumSize)
	b := v.AsSlice()
	b[0] = header.IPv4Version<<4 | header.IPv4MinimumSize/4
	binary.BigEndian.PutUint16(b[2:], uint16(header.IPv4MinimumSize+p.data.Size()))
	field := uint16(p.offset / 8)
	if p.more {
		field |= header.IPv4FlagMoreFragments << 13
	}
	binary.BigEndian.PutUint16(b[6:], field)
	b[8] = 1 // TTL
	b[9] = neutralProtocol
	copy(b[12:], engineSourceIPv4)
	copy(b[16:], engineLocalIPv4)
	return v
}

// headerIPv6 makes the synthetic headers in front of a piece.
func (p *piece) headerIPv6() *buffer.View {
	v := buffer.NewViewSize(header.IPv6MinimumSize + header.IPv6FragmentHeaderSize)
	b := v.AsSlice()
	b[0] = header.IPv6Version << 4
	binary.BigEndian.PutUint16(b[4:], uint16(header.IPv6FragmentHeaderSize+p.data.Size()))
	b[6] = header.IPv6FragmentHeader
	b[7] = 1 // hop limit
	copy(b[8:], engineSourceIPv6)
	copy(b[24:], engineLocalIPv6)

	h := b[header.IPv6MinimumSize:]
	h[0] = neutralProtocol
	field := uint16(p.offset)
	if p.more {
		field |= 1
	}
	binary.BigEndian.PutUint16(h[2:], field)
	return v
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
// send.
type engineNIC struct{ stack.NetworkLinkEndpoint }

func (engineNIC) ID() tcpip.NICID                                                   { return 1 }
func (engineNIC) Name() string                                                      { return "" }
func (engineNIC) IsLoopback() bool                                                  { return false }
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
