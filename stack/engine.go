package stack

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// engineLimit is the payload, headers and bookkeeping in bytes that gVisor
// holds for one protocol before it evicts what is oldest, silently
// (pkg/tcpip/network/internal/fragmentation, HighFragThreshold). The table
// stays below it.
const engineLimit = 4 << 20

// neutralProtocol is the upper-layer protocol of the synthetic packets: one
// that gVisor knows nothing about, so that it hands the payload on untouched
// (RFC 3692 reserves 254 for experiments; gVisor reads 253 as an extension
// header).
const neutralProtocol = 254

// Addresses of the synthetic packets: the source carries a part of the
// datagram's number, the destination is the engine's own.
const (
	engineSourceIPv4 = 0x0a000000             // 10.0.0.0/8
	engineLocalIPv4  = "\xc6\x12\x00\x01"     // 198.18.0.1, RFC 2544
	enginePrefixIPv6 = "\xfd\x00\x00\x00\x00" // fd00::/40
	engineLocalIPv6  = enginePrefixIPv6 + "\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"
)

// engine puts fragments together with gVisor's IPv4 and IPv6 endpoints. It
// sees no packet of the wire: each fragment goes in under a header made from
// its datagram's number. An engine is not safe for concurrent use.
type engine struct {
	ipv4, ipv6 endpoint
	whole      *gstack.PacketBuffer // set by DeliverTransportPacket; ours to release
}

// endpoint is one family's protocol instance, which holds the fragments in
// waiting, and the endpoint by which they go in.
type endpoint struct {
	gstack.NetworkEndpoint
	protocol gstack.NetworkProtocol
}

// engineStack is what endpoints ask for clocks, statistics and tables. It has
// neither NICs nor transport protocols, and no packet ever enters it, so that
// all engines can share one.
var engineStack = gstack.New(gstack.Options{Clock: frozenClock{}})

// newEngine returns an engine; [engine.close] frees it.
func newEngine() *engine {
	e := &engine{}
	e.ipv4 = e.newEndpoint(ipv4.NewProtocolWithOptions(ipv4.Options{}), engineLocalIPv4)
	e.ipv6 = e.newEndpoint(ipv6.NewProtocolWithOptions(ipv6.Options{}), engineLocalIPv6)
	return e
}

// newEndpoint panics where gVisor refuses its own defaults: that is a mistake
// in the program, whatever the input.
func (e *engine) newEndpoint(factory gstack.NetworkProtocolFactory, local string) endpoint {
	p := factory(engineStack)
	ep := endpoint{NetworkEndpoint: p.NewEndpoint(engineNIC{}, e), protocol: p}
	if err := ep.Enable(); err != nil {
		panic(fmt.Sprintf("stack: enable gVisor endpoint: %v", err))
	}
	address := tcpip.AddrFromSlice([]byte(local)).WithPrefix()
	state, err := ep.NetworkEndpoint.(gstack.AddressableEndpoint).AddAndAcquirePermanentAddress(address, gstack.AddressProperties{})
	if err != nil {
		panic(fmt.Sprintf("stack: add address to gVisor endpoint: %v", err))
	}
	state.DecRef()
	return ep
}

func (e *engine) close() {
	for _, ep := range []endpoint{e.ipv4, e.ipv6} {
		ep.Close()
		ep.protocol.Close()
	}
}

// piece is one fragment as the engine sees it.
type piece struct {
	family family
	number uint64 // of the datagram
	offset int    // bytes
	more   bool
}

// feed hands a fragment to gVisor, which takes over payload. Where that makes
// the datagram whole, feed returns the reassembled fragmentable part as the
// data of a packet that the caller must DecRef; nil otherwise.
func (e *engine) feed(f piece, payload *buffer.View) *gstack.PacketBuffer {
	ep, head := e.ipv4, (*buffer.View)(nil)
	number := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if f.family == familyIPv6 {
		ep, number = e.ipv6, header.IPv6ProtocolNumber
		head = f.headerIPv6(payload.Size())
	} else {
		head = f.headerIPv4(payload.Size())
	}
	data := buffer.MakeWithView(head)
	data.Append(payload)
	pkt := gstack.NewPacketBuffer(gstack.PacketBufferOptions{Payload: data})
	pkt.NetworkProtocolNumber = number
	pkt.RXChecksumValidated = true
	ep.HandlePacket(pkt)
	pkt.DecRef()
	whole := e.whole
	e.whole = nil
	return whole
}

// cancel makes gVisor free a datagram of which it has the fragment that
// begins at f.offset with length bytes: it feeds another that overlaps it
// without covering the same range, on which gVisor discards all it has
// (RFC 5722). The overlapping one stays within what gVisor takes for a
// possible packet, so that it gets as far as being compared.
func (e *engine) cancel(f piece, length int) {
	switch {
	case f.offset > 8: // from the block before to the same end
		f.offset -= 8
		length += 8
		f.more = false
	case f.offset == 0 && length > 8: // a part of it
		length = 8
		f.more = true
	default: // the blocks at 0 and at 8, of which it has one and not the other, or more than one
		f.offset = 0
		length = 16
		f.more = true
	}
	e.feed(f, buffer.NewViewSize(length))
}

// engineCharge returns what gVisor counts against engineLimit for a fragment
// with length bytes of payload.
func engineCharge(f family, length int) int {
	headers := header.IPv4MinimumSize
	if f == familyIPv6 {
		headers = header.IPv6MinimumSize + header.IPv6FragmentHeaderSize
	}
	return headers + length + gstack.PacketBufferStructSize
}

// headerIPv4 makes the synthetic header in front of length bytes of payload:
// 24 bits of the datagram's number in the source, 16 in the identification.
func (f piece) headerIPv4(length int) *buffer.View {
	v := buffer.NewViewSize(header.IPv4MinimumSize)
	b := v.AsSlice()
	b[0] = header.IPv4Version<<4 | header.IPv4MinimumSize/4
	binary.BigEndian.PutUint16(b[2:], uint16(header.IPv4MinimumSize+length))
	binary.BigEndian.PutUint16(b[4:], uint16(f.number))
	field := uint16(f.offset / 8)
	if f.more {
		field |= header.IPv4FlagMoreFragments << 13
	}
	binary.BigEndian.PutUint16(b[6:], field)
	b[8] = 1 // TTL
	b[9] = neutralProtocol
	binary.BigEndian.PutUint32(b[12:], engineSourceIPv4|uint32(f.number>>16)&0xffffff)
	copy(b[16:], engineLocalIPv4)
	return v
}

// headerIPv6 makes the synthetic headers in front of length bytes of payload:
// the low 32 bits of the number in the identification, the high ones in the
// source.
func (f piece) headerIPv6(length int) *buffer.View {
	v := buffer.NewViewSize(header.IPv6MinimumSize + header.IPv6FragmentHeaderSize)
	b := v.AsSlice()
	b[0] = header.IPv6Version << 4
	binary.BigEndian.PutUint16(b[4:], uint16(header.IPv6FragmentHeaderSize+length))
	b[6] = header.IPv6FragmentHeader
	b[7] = 1 // hop limit
	copy(b[8:], enginePrefixIPv6)
	binary.BigEndian.PutUint32(b[20:], uint32(f.number>>32))
	copy(b[24:], engineLocalIPv6)

	h := b[header.IPv6MinimumSize:]
	h[0] = neutralProtocol
	field := uint16(f.offset)
	if f.more {
		field |= 1
	}
	binary.BigEndian.PutUint16(h[2:], field)
	binary.BigEndian.PutUint32(h[4:], uint32(f.number))
	return v
}

// DeliverTransportPacket implements [gstack.TransportDispatcher]: only a
// reassembled datagram gets here.
func (e *engine) DeliverTransportPacket(_ tcpip.TransportProtocolNumber, pkt *gstack.PacketBuffer) gstack.TransportPacketDisposition {
	e.whole = pkt.IncRef()
	return gstack.TransportPacketHandled
}

// DeliverTransportError implements [gstack.TransportDispatcher].
func (*engine) DeliverTransportError(_, _ tcpip.Address, _ tcpip.NetworkProtocolNumber, _ tcpip.TransportProtocolNumber, _ gstack.TransportError, _ *gstack.PacketBuffer) {
}

// DeliverRawPacket implements [gstack.TransportDispatcher].
func (*engine) DeliverRawPacket(tcpip.TransportProtocolNumber, *gstack.PacketBuffer) {}

// engineNIC is the network interface of the endpoints: enabled, and unable to
// send.
type engineNIC struct{ gstack.NetworkLinkEndpoint }

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
func (engineNIC) WritePacketToRemote(tcpip.LinkAddress, *gstack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) WritePacket(*gstack.Route, *gstack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) HandleNeighborProbe(tcpip.NetworkProtocolNumber, tcpip.Address, tcpip.LinkAddress) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (engineNIC) HandleNeighborConfirmation(tcpip.NetworkProtocolNumber, tcpip.Address, tcpip.LinkAddress, gstack.ReachabilityConfirmationFlags) tcpip.Error {
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
