package packet

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet/verdict"
)

// MaxExtensionHeaders is the largest number of extension headers that a packet may have.
// RFC 8200 §4.1 describes at most seven. The limit bounds the work per packet (RFC 8504
// §5.3 permits such limits).
const MaxExtensionHeaders = 16

// segmentsLeft is the offset in a routing header, in bytes, of the number of listed nodes
// that are still to be visited (RFC 8200 §4.4).
const segmentsLeft = 3

// nextHeaderField is the offset of the Next Header field in the IPv6 header, in bytes.
const nextHeaderField = 6

// decodeIPv6 reads the IPv6 header at p.Network (RFC 8200 §3) and walks its extension
// chain. A payload length of 0 means no payload: a jumbogram (RFC 2675) ends in its
// hop-by-hop header.
func (p *Parsed) decodeIPv6(frame []byte) verdict.Reason {
	b := frame[p.Network:]
	if len(b) < SizeIPv6 || b[0]>>4 != versionIPv6 {
		return verdict.IPv6Header
	}
	length := SizeIPv6 + int(binary.BigEndian.Uint16(b[4:]))
	p.NoLength = length == SizeIPv6
	if length > len(b) {
		return verdict.IPv6Length
	}
	p.End = p.Network + length
	p.HopLimit = b[7]
	p.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	return p.walkChain(frame[:p.End], b[nextHeaderField])
}

// walkChain follows the Next Header fields, starting with next, to the upper-layer
// protocol. In a fragment other than the first it stops at the fragment header.
func (p *Parsed) walkChain(packet []byte, next uint8) verdict.Reason {
	named := p.Network + nextHeaderField // offset of the field that holds next
	at := p.Network + SizeIPv6
	fragmentHeader := false
	for n := 0; ; n++ {
		size, ok := extensionSize(packet[at:], next)
		if !ok {
			return p.upperLayer(packet, at, next, fragmentHeader)
		}
		switch {
		case n == MaxExtensionHeaders:
			return verdict.IPv6ChainTooLong
		case next == headerFragment && fragmentHeader:
			return verdict.FragmentTwoHeaders
		case size == 0 || size > len(packet)-at:
			if p.Fragment.Present {
				return verdict.FragmentIncompleteChain
			}
			return verdict.IPv6Chain
		case next == headerHopByHop && n > 0:
			return verdict.IPv6Chain
		}
		h := packet[at : at+size]
		if next == headerRouting && h[segmentsLeft] > 0 {
			p.SourceRoute = true
		}
		if next == headerFragment {
			fragmentHeader = true
			if r := p.decodeFragmentHeader(h, at+size); r != verdict.Passed {
				return r
			}
			p.Fragment.NextHeader = named
			if p.Fragment.Offset > 0 {
				return verdict.Passed
			}
		}
		next, named = h[0], at
		at += size
	}
}

// upperLayer ends the walk at the upper-layer header of a whole packet or a first
// fragment.
func (p *Parsed) upperLayer(packet []byte, at int, protocol uint8, fragmentHeader bool) verdict.Reason {
	p.Protocol = protocol
	p.Upper = at
	upper := packet[at:]
	if p.Fragment.Present && len(upper) < minimumHeader(protocol) {
		return verdict.FragmentIncompleteChain
	}
	p.decodeUpper(upper)
	if fragmentHeader && p.Transport == ICMP && neverFragmented(p.ICMPType) {
		return verdict.FragmentedNeighborDiscovery
	}
	return verdict.Passed
}

// UpperLayer follows the chain of extension headers at the beginning of b, whose first
// header has type next. It returns the upper-layer protocol and the part of its packet
// that b holds. It is for quoted packets, which may be cut: ok is false if the chain does
// not end in b, is too long, or belongs to a fragment other than the first.
func UpperLayer(b []byte, next uint8) (protocol uint8, upper []byte, ok bool) {
	for range MaxExtensionHeaders + 1 {
		size, isExtension := extensionSize(b, next)
		switch {
		case !isExtension:
			return next, b, true
		case size == 0 || size > len(b):
			return 0, nil, false
		case next == headerFragment && binary.BigEndian.Uint16(b[2:])&^7 != 0:
			return 0, nil, false
		}
		next, b = b[0], b[size:]
	}
	return 0, nil, false
}

// extensionSize returns the size in bytes of the extension header of type next at the
// beginning of b, or 0 if b is too short to tell. ok is false if next is not an extension
// header that the decoder walks.
func extensionSize(b []byte, next uint8) (size int, ok bool) {
	unit, more := 8, 1 // RFC 8200 §4: units of 8 bytes, not counting the first
	switch next {
	case headerFragment:
		return SizeFragmentHeader, true
	case ProtocolAH:
		unit, more = 4, 2 // RFC 4302 §2.2: units of 4 bytes, less 2
	case headerHopByHop, headerRouting, headerDestination, headerMobility, headerHIP, headerShim6:
	default:
		return 0, false
	}
	if len(b) < 2 {
		return 0, true
	}
	return (int(b[1]) + more) * unit, true
}

// decodeFragmentHeader reads the fragment header h (RFC 8200 §4.5). The fragmentable part
// begins at payload. An atomic fragment counts as a whole packet (RFC 6946 §4).
func (p *Parsed) decodeFragmentHeader(h []byte, payload int) verdict.Reason {
	field := binary.BigEndian.Uint16(h[2:])
	offset, more := int(field&^7), field&1 != 0
	if offset == 0 && !more {
		return verdict.Passed
	}
	p.Fragmented = true
	p.Fragment = Fragment{
		Present: true,
		More:    more,
		ID:      binary.BigEndian.Uint32(h[4:]),
		Offset:  offset,
		Payload: payload,
		Headers: payload - SizeFragmentHeader - SizeIPv6 - p.Network,
	}
	return p.checkFragment()
}

// neverFragmented reports whether nodes must ignore the ICMPv6 type in a packet with a
// fragment header (RFC 6980 §5): neighbour discovery, and the certification path messages
// of secure neighbour discovery.
func neverFragmented(icmpType uint8) bool {
	const certificationPathSolicit, certificationPathAdvert = 148, 149
	return icmpType >= ICMPv6RouterSolicitation && icmpType <= ICMPv6Redirect ||
		icmpType == certificationPathSolicit || icmpType == certificationPathAdvert
}
