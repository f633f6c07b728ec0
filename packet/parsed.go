package packet

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet/verdict"
)

// Kind is what a frame carries, as far as the policy tells it apart.
type Kind uint8

// The kinds of frames.
const (
	NonIP Kind = iota // any other EtherType, and LLC of other contents
	ARP
	IPv4
	IPv6
)

// Transport says which fields of the upper-layer header a packet has.
type Transport uint8

const (
	// NoFields: the protocol has neither ports nor an ICMP type, or the packet
	// is a fragment other than the first.
	NoFields Transport = iota
	// Ports: SrcPort and DstPort are set.
	Ports
	// ICMP: ICMPType and ICMPCode are set.
	ICMP
	// Truncated: the protocol has such fields, and the packet ends before them.
	Truncated
)

// Fragment is what a packet says of its fragmentation. Offsets into the frame
// are in bytes from its start.
type Fragment struct {
	// Present is set for a fragment; a whole packet and an atomic IPv6
	// fragment (RFC 6946) leave it false.
	Present bool
	More    bool   // the M flag
	ID      uint32 // identification: 16 bits in IPv4, 32 in IPv6
	Offset  int    // of the payload in the datagram's fragmentable part, bytes
	Payload int    // where the fragmentable part begins in the frame
	// Headers is how many bytes of headers count against the 65,535 that the
	// datagram may have: in IPv4 the header, in IPv6 the extension headers
	// before the fragment header.
	Headers int
	// NextHeader is where in the frame the Next Header field stands that names
	// the IPv6 fragment header.
	NextHeader int
}

// Parsed is one decoded frame. It holds no reference to the frame: offsets
// are in bytes from the frame's start. The zero value is ready for [Parsed.Decode].
type Parsed struct {
	Kind      Kind
	EtherType uint16 // after the tags and SNAP; under 0x0600 it is an 802.3 length
	TagCount  uint8
	Tags      [2]Tag // outermost first; TagCount of them

	LLC     int // where the LLC header begins, in a frame with an 802.3 length; else 0
	Network int // where the network header begins
	End     int // where the packet ends; what follows is padding or a trailer
	// NoLength is set where the IP header's length field is 0. A sender leaves it
	// so for its NIC to fill in where the packet is cut into segments, and a
	// jumbogram (RFC 2675) has its length elsewhere.
	NoLength bool

	// Of IP packets:
	Src, Dst netip.Addr
	HopLimit uint8 // TTL in IPv4
	Protocol uint8 // upper-layer protocol, at the end of the IPv6 chain
	Fragment Fragment
	// SourceRoute is set where the packet tells routers a way beside its
	// destination: an IPv4 source route (RFC 791 §3.1), used up or not, or an IPv6
	// routing header with segments left (RFC 8200 §4.4), which has the packet go on
	// from its destination to another one.
	SourceRoute bool
	// Fragmented is set where the datagram did not arrive whole: for a fragment,
	// and for the datagram put together from fragments.
	Fragmented bool

	Transport          Transport
	Upper              int // where the upper-layer header begins, where it is known
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
}

// Decode fills p from an Ethernet frame, clearing what was there. It returns
// [verdict.Passed], or the reason why the frame can't be judged; then p holds what
// was read up to there.
func (p *Parsed) Decode(frame []byte) verdict.Reason {
	*p = Parsed{}
	if r := p.decodeLink(frame); r != verdict.Passed {
		return r
	}
	frame = frame[:p.End]
	switch p.EtherType {
	case EtherTypeIPv4:
		p.Kind = IPv4
		return p.decodeIPv4(frame)
	case EtherTypeIPv6:
		p.Kind = IPv6
		return p.decodeIPv6(frame)
	case EtherTypeARP:
		p.Kind = ARP
	}
	return verdict.Passed
}

// Length returns the length in bytes of the packet in the frame that was decoded:
// what the IP header says, without padding, trailer or frame check sequence;
// behind LLC, what the 802.3 length says. Where no header says it, it is all that
// follows the Ethernet header and the tags.
func (p *Parsed) Length(frame []byte) int {
	if p.NoLength {
		return len(frame) - p.Network
	}
	return p.FrameEnd(frame) - p.Network
}

// FrameEnd returns where the frame that was decoded ends without what follows its
// packet: there, or where its 802.3 length says, which may count padding, too.
func (p *Parsed) FrameEnd(frame []byte) int {
	if p.LLC > 0 && p.Upper > 0 {
		return p.LLC + int(binary.BigEndian.Uint16(frame[p.LLC-typeSize:]))
	}
	return p.End
}

// Complete turns p, decoded from a datagram's first fragment, into the whole
// datagram, of which payload is the beginning of the fragmentable part, at
// least as much as the first fragment held. An IPv4 transport header may
// reach over several fragments; an IPv6 first fragment holds its whole chain
// (RFC 7112), so there is nothing to read again.
func (p *Parsed) Complete(payload []byte) {
	p.Fragment = Fragment{}
	if p.Kind == IPv4 {
		p.decodeUpper(payload)
	}
}

// HoldsTransport reports whether a first fragment has its upper-layer header
// whole, without options, so that nothing that a policy could ask for is left
// to another fragment. An IPv6 one always has: without, it isn't decoded.
func (p *Parsed) HoldsTransport() bool { return p.End-p.Upper >= minimumHeader(p.Protocol) }

// decodeUpper reads the fields that a policy asks for from the beginning of
// the upper-layer header.
func (p *Parsed) decodeUpper(b []byte) {
	p.Transport = NoFields
	switch {
	case HasPorts(p.Protocol):
		if len(b) < 4 {
			p.Transport = Truncated
			return
		}
		p.Transport = Ports
		p.SrcPort = binary.BigEndian.Uint16(b)
		p.DstPort = binary.BigEndian.Uint16(b[2:])
	case p.Kind == IPv4 && p.Protocol == ProtocolICMP, p.Kind == IPv6 && p.Protocol == ProtocolICMPv6:
		if len(b) < 2 {
			p.Transport = Truncated
			return
		}
		p.Transport = ICMP
		p.ICMPType, p.ICMPCode = b[0], b[1]
	}
}

// NeighborDiscovery reports whether the packet is a neighbour discovery
// message that a host would take: router solicitation to redirect, with the
// hop limit that proves it was sent on this link (RFC 4861 §6.1, §7.1, §8.1).
func (p *Parsed) NeighborDiscovery() bool {
	return p.Kind == IPv6 && p.Protocol == ProtocolICMPv6 && p.Transport == ICMP && p.HopLimit == 255 &&
		p.ICMPType >= ICMPv6RouterSolicitation && p.ICMPType <= ICMPv6Redirect
}
