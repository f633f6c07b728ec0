package reject

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/checksum"
)

// Maximum size of an ICMP error in bytes, including what it quotes, so that it needs no
// fragmentation (RFC 1812 §4.3.2.3, RFC 4443 §2.4(c)).
const (
	maxICMPErrorIPv4 = 576
	maxICMPErrorIPv6 = 1280 // the minimum MTU (RFC 8200 §5)
)

// replyHopLimit is the hop limit of replies (IANA, "IP Parameters", default TTL).
const replyHopLimit = 64

// Append appends to b the frame that tells the sender of a datagram that the policy
// rejects it, in the name of its destination: a RST for a TCP segment, otherwise ICMP
// administratively prohibited (RFC 1812 §5.2.7.1, RFC 4443 §3.1). It returns b unchanged
// if the datagram must not be answered.
//
// frame holds the datagram or its first fragment, from which v was decoded. The reply has
// at most mtu bytes after its Ethernet header.
func Append(b, frame []byte, v *packet.View, mtu int) []byte {
	if !answerable(frame, v.Parsed) {
		return b
	}
	if v.Protocol == packet.ProtocolTCP {
		return appendReset(b, frame, v)
	}
	return appendProhibited(b, frame, v.Parsed, mtu)
}

// answerable reports whether an error may answer a datagram (RFC 1122 §3.2.2, RFC 4443
// §2.4(e)): it is not itself an error, nor a fragment other than the first, it was not
// sent to a group or to everyone, and its source is the address of one host.
func answerable(frame []byte, p *packet.Parsed) bool {
	const groupBit = 1 // of a MAC address
	switch {
	case p.Kind != packet.IPv4 && p.Kind != packet.IPv6,
		frame[0]&groupBit != 0, frame[packet.SizeMAC]&groupBit != 0,
		p.Fragment.Offset > 0,
		p.Transport == packet.ICMP && isICMPError(p):
		return false
	}
	for _, a := range [...]netip.Addr{p.Src, p.Dst} {
		if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
			return false
		}
	}
	// 240.0.0.0/4 is reserved, and ends with the broadcast address.
	return !p.Src.Is4() || p.Src.As4()[0] < 240 && p.Dst.As4()[0] < 240
}

// isICMPError reports whether an ICMP message is an error or a redirect.
func isICMPError(p *packet.Parsed) bool {
	if p.Kind == packet.IPv6 {
		return p.ICMPType < packet.ICMPv6FirstInformational || p.ICMPType == packet.ICMPv6Redirect
	}
	switch p.ICMPType {
	case packet.ICMPDestinationUnreachable, packet.ICMPSourceQuench, packet.ICMPRedirect,
		packet.ICMPTimeExceeded, packet.ICMPParameterProblem:
		return true
	}
	return false
}

// Offsets of the fields of a TCP header, in bytes, and its flags (RFC 9293 §3.1).
const (
	tcpSourcePort      = 0
	tcpDestinationPort = 2
	tcpSequence        = 4
	tcpAcknowledgment  = 8
	tcpDataOffset      = 12 // in the upper half, in units of 4 bytes
	tcpFlags           = 13
	tcpChecksum        = 16

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// appendReset appends the RST that a host without the connection answers a segment with
// (RFC 9293 §3.10.7.1). It does not answer a RST, nor a segment with an incomplete
// header.
func appendReset(b, frame []byte, v *packet.View) []byte {
	in := v.Body
	if len(in) < packet.SizeTCP {
		return b
	}
	size, flags := int(in[tcpDataOffset]>>4)*4, in[tcpFlags]
	if flags&flagRST != 0 || size < packet.SizeTCP || size > v.BodyLength {
		return b
	}
	b, out := appendHeaders(b, frame, v.Parsed, packet.ProtocolTCP, packet.SizeTCP)
	copy(out[tcpSourcePort:], in[tcpDestinationPort:][:2])
	copy(out[tcpDestinationPort:], in[tcpSourcePort:][:2])
	out[tcpDataOffset] = packet.SizeTCP / 4 << 4
	if flags&flagACK != 0 {
		out[tcpFlags] = flagRST
		copy(out[tcpSequence:], in[tcpAcknowledgment:][:4])
	} else {
		out[tcpFlags] = flagRST | flagACK
		length := uint32(v.BodyLength - size)
		for _, counted := range [...]uint8{flagSYN, flagFIN} {
			if flags&counted != 0 {
				length++
			}
		}
		binary.BigEndian.PutUint32(out[tcpAcknowledgment:], binary.BigEndian.Uint32(in[tcpSequence:])+length)
	}
	checksum.Put(out, tcpChecksum, checksum.PseudoHeader(v.Dst, v.Src, packet.ProtocolTCP, len(out)))
	return b
}

// ICMP destination unreachable (RFC 792, RFC 4443 §3.1): the codes of "administratively
// prohibited", the size of the header and the offset of its checksum, in bytes.
const (
	codeProhibited     = 13 // communication administratively prohibited (RFC 1812 §5.2.7.1)
	codeProhibitedIPv6 = 1
	icmpHeader         = 8
	icmpChecksum       = 2
)

// appendProhibited appends an ICMP error that quotes the packet.
func appendProhibited(b, frame []byte, p *packet.Parsed, mtu int) []byte {
	most, header := maxICMPErrorIPv4, packet.SizeIPv4
	protocol, kind, code := uint8(packet.ProtocolICMP), uint8(packet.ICMPDestinationUnreachable), uint8(codeProhibited)
	if p.Kind == packet.IPv6 {
		most, header = maxICMPErrorIPv6, packet.SizeIPv6
		protocol, kind, code = packet.ProtocolICMPv6, packet.ICMPv6DestinationUnreachable, codeProhibitedIPv6
	}
	quoted := frame[p.Network:p.End]
	room := min(most, p.PacketMTU(mtu)) - header - icmpHeader
	quoted = quoted[:min(len(quoted), max(room, 0))]
	b, out := appendHeaders(b, frame, p, protocol, icmpHeader+len(quoted))
	out[0], out[1] = kind, code
	copy(out[icmpHeader:], quoted)
	sum := uint16(0)
	if p.Kind == packet.IPv6 {
		sum = checksum.PseudoHeader(p.Dst, p.Src, protocol, len(out))
	}
	checksum.Put(out, icmpChecksum, sum)
	return b
}

// appendHeaders appends the link and network headers of a reply to a packet's sender,
// with the packet's VLAN tags and LLC header, and size zero bytes, which it also returns.
func appendHeaders(b, frame []byte, p *packet.Parsed, protocol uint8, size int) (all, upper []byte) {
	const mac = packet.SizeMAC
	link := len(b)
	b = append(b, frame[mac:2*mac]...)
	b = append(b, frame[:mac]...)
	b = append(b, frame[2*mac:p.Network]...)
	header := packet.SizeIPv6
	if p.Kind == packet.IPv4 {
		header = packet.SizeIPv4
	}
	at := len(b)
	for range header + size {
		b = append(b, 0)
	}
	p.SetLength(b[link:])
	ip := b[at:]
	if p.Kind == packet.IPv4 {
		putIPv4(ip, p, protocol)
	} else {
		putIPv6(ip, p, protocol)
	}
	return b, ip[header:]
}

// putIPv4 writes the IPv4 header of a reply into zero bytes (RFC 791 §3.1).
func putIPv4(ip []byte, p *packet.Parsed, protocol uint8) {
	const (
		version      = 4
		dontFragment = 0x40 // so the identification may be 0 (RFC 6864 §4.1)
		checksumAt   = 10
	)
	ip[0], ip[6], ip[8], ip[9] = version<<4|packet.SizeIPv4/4, dontFragment, replyHopLimit, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	src, dst := p.Dst.As4(), p.Src.As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	checksum.Put(ip[:packet.SizeIPv4], checksumAt, 0)
}

// putIPv6 writes the IPv6 header of a reply into zero bytes (RFC 8200 §3).
func putIPv6(ip []byte, p *packet.Parsed, protocol uint8) {
	const version = 6
	ip[0], ip[6], ip[7] = version<<4, protocol, replyHopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-packet.SizeIPv6))
	src, dst := p.Dst.As16(), p.Src.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
}
