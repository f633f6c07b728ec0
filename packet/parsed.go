package packet

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet/verdict"
)

// Kind is the kind of a frame's contents, as far as the policy distinguishes it.
type Kind uint8

// The kinds of frames.
const (
	NonIP Kind = iota // any other EtherType, and LLC with other contents
	ARP
	IPv4
	IPv6
)

// Transport tells which fields of the upper-layer header a packet has.
type Transport uint8

const (
	// NoFields: the protocol has neither ports nor an ICMP type, or the packet
	// is a fragment other than the first.
	NoFields Transport = iota
	// Ports: SrcPort and DstPort are set.
	Ports
	// ICMP: ICMPType and ICMPCode are set.
	ICMP
	// Truncated: the protocol has such fields, but the packet ends before them.
	Truncated
)

// Fragment has the fields of a packet that are about fragmentation. Offsets into the
// frame are in bytes from its start.
type Fragment struct {
	// Present is set for a fragment; a whole packet and an atomic IPv6
	// fragment (RFC 6946) leave it false.
	Present bool
	More    bool   // the M flag
	ID      uint32 // identification: 16 bits in IPv4, 32 in IPv6
	Offset  int    // of the payload in the datagram's fragmentable part, bytes
	Payload int    // where the fragmentable part begins in the frame
	// Headers is the number of bytes of headers that count towards the datagram's limit
	// of 65,535: in IPv4 the header, in IPv6 the extension headers before the fragment
	// header.
	Headers int
	// NextHeader is the offset in the frame of the Next Header field that announces the
	// IPv6 fragment header.
	NextHeader int
}

// Parsed is one decoded frame. It holds no reference to the frame: offsets
// are in bytes from the frame's start. The zero value is ready for [Parsed.Decode].
type Parsed struct {
	Kind      Kind
	EtherType uint16 // after the tags and SNAP; under 0x0600 it is an 802.3 length
	TagCount  uint8
	Tags      [2]Tag // outermost first; TagCount of them

	LLC     int // offset of the LLC header in a frame with an 802.3 length; otherwise 0
	Network int // offset of the network header
	End     int // end of the packet; padding or a trailer may follow
	// NoLength is set if the length field of the IP header is 0. A sender leaves it to
	// its NIC if that cuts the packet into segments. A jumbogram (RFC 2675) has its
	// length elsewhere.
	NoLength bool

	// Of IP packets:
	Src, Dst netip.Addr
	HopLimit uint8 // TTL in IPv4
	Protocol uint8 // upper-layer protocol, at the end of the IPv6 chain
	Fragment Fragment
	// SourceRoute is set if the packet prescribes its route: an IPv4 source route (RFC
	// 791 §3.1), used up or not, or an IPv6 routing header with segments left (RFC 8200
	// §4.4), which sends the packet on from its destination address.
	SourceRoute bool
	// Fragmented is set if the datagram did not arrive whole: for a fragment, and for a
	// reassembled datagram.
	Fragmented bool

	Transport          Transport
	Upper              int // offset of the upper-layer header, if it is known
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
}

// Decode clears p and fills it from an Ethernet frame. It returns [verdict.Passed], or
// the reason why the frame cannot be judged; then p holds what was read before.
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

// Length returns the length in bytes of the packet in the decoded frame, without padding,
// trailer and frame check sequence: by the IP header, or after LLC by the 802.3 length.
// If no header has a length, it is everything after the Ethernet header and the tags.
func (p *Parsed) Length(frame []byte) int {
	if p.NoLength {
		return len(frame) - p.Network
	}
	return p.FrameEnd(frame) - p.Network
}

// FrameEnd returns the offset where the decoded frame ends: where its packet ends, or
// where its 802.3 length says, which may include padding.
func (p *Parsed) FrameEnd(frame []byte) int {
	if p.LLC > 0 && p.Upper > 0 {
		return p.LLC + int(binary.BigEndian.Uint16(frame[p.LLC-typeSize:]))
	}
	return p.End
}

// Complete turns p, decoded from the first fragment of a datagram, into the whole
// datagram. payload is the beginning of the fragmentable part, at least as long as the
// first fragment. In IPv4 the transport header may extend over several fragments, so it
// is read again. An IPv6 first fragment has the whole chain (RFC 7112).
func (p *Parsed) Complete(payload []byte) {
	p.Fragment = Fragment{}
	if p.Kind == IPv4 {
		p.decodeUpper(payload)
	}
}

// HoldsTransport reports whether a first fragment has the whole upper-layer header,
// without options, so that a policy needs no other fragment. An IPv6 first fragment
// always has: otherwise decoding fails.
func (p *Parsed) HoldsTransport() bool { return p.End-p.Upper >= minimumHeader(p.Protocol) }

// decodeUpper reads the fields that a policy uses from the beginning of the upper-layer
// header.
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

// NeighborDiscovery reports whether the packet is a neighbour discovery message that a
// host would accept: a router solicitation to a redirect, with the hop limit that proves
// that it was sent on this link (RFC 4861 §6.1, §7.1, §8.1).
func (p *Parsed) NeighborDiscovery() bool {
	return p.Kind == IPv6 && p.Protocol == ProtocolICMPv6 && p.Transport == ICMP && p.HopLimit == 255 &&
		p.ICMPType >= ICMPv6RouterSolicitation && p.ICMPType <= ICMPv6Redirect
}
