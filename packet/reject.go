package packet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The most that an ICMP error may have with what it quotes, in bytes, so that
// it needs no fragmentation (RFC 1812 §4.3.2.3, RFC 4443 §2.4(c)).
const (
	maxICMPErrorIPv4 = 576
	maxICMPErrorIPv6 = header.IPv6MinimumMTU
)

// replyHopLimit is that of replies (IANA, "IP Parameters", default TTL).
const replyHopLimit = 64

// AppendReject appends to b the frame that tells a datagram's sender that the
// policy rejects it, in the name of its destination: a RST where it is a TCP
// segment, else ICMP administratively prohibited (RFC 1812 §5.2.7.1, RFC 4443
// §3.1). It returns b as it is where nobody is to be told.
//
// The datagram is given by its frame, or its first fragment's, what was
// decoded of that, its upper-layer header with what is at hand of the rest, and
// how long that is in all. The reply has at most mtu bytes without its Ethernet
// header.
func AppendReject(b, frame []byte, p *Parsed, upper []byte, upperLength, mtu int) []byte {
	if !p.answerable(frame) {
		return b
	}
	if p.Protocol == ProtocolTCP {
		return appendReset(b, frame, p, upper, upperLength)
	}
	return appendProhibited(b, frame, p, mtu)
}

// answerable reports whether a datagram may be answered by an error (RFC 1122
// §3.2.2, RFC 4443 §2.4(e)): it is no error itself, no fragment but the first,
// and neither sent to a group or everyone, nor from what can't be one host.
func (p *Parsed) answerable(frame []byte) bool {
	const groupBit = 1 // of a MAC address
	switch {
	case p.Kind != IPv4 && p.Kind != IPv6,
		frame[0]&groupBit != 0, frame[header.EthernetAddressSize]&groupBit != 0,
		p.Fragment.Offset > 0,
		p.Transport == ICMP && p.icmpError():
		return false
	}
	for _, a := range [...]netip.Addr{p.Src, p.Dst} {
		if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
			return false
		}
	}
	// 240.0.0.0/4 is reserved, with the broadcast address at its end.
	return !p.Src.Is4() || p.Src.As4()[0] < 240 && p.Dst.As4()[0] < 240
}

// icmpError reports whether an ICMP message is an error or a redirect.
func (p *Parsed) icmpError() bool {
	if p.Kind == IPv6 {
		return p.ICMPType < 128 || p.ICMPType == uint8(header.ICMPv6RedirectMsg)
	}
	switch p.ICMPType {
	case uint8(header.ICMPv4DstUnreachable), uint8(header.ICMPv4SrcQuench), uint8(header.ICMPv4Redirect),
		uint8(header.ICMPv4TimeExceeded), uint8(header.ICMPv4ParamProblem):
		return true
	}
	return false
}

// appendReset appends the RST with which a host without the connection answers
// a segment (RFC 9293 §3.10.7.1), but for a RST, and for one whose header is
// not all there.
func appendReset(b, frame []byte, p *Parsed, upper []byte, upperLength int) []byte {
	if len(upper) < header.TCPMinimumSize {
		return b
	}
	in := header.TCP(upper)
	size := int(in.DataOffset())
	if in.Flags().Contains(header.TCPFlagRst) || size < header.TCPMinimumSize || size > upperLength {
		return b
	}
	fields := header.TCPFields{
		SrcPort: in.DestinationPort(), DstPort: in.SourcePort(),
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst,
	}
	if in.Flags().Contains(header.TCPFlagAck) {
		fields.SeqNum = in.AckNumber()
	} else {
		fields.Flags |= header.TCPFlagAck
		fields.AckNum = in.SequenceNumber() + uint32(upperLength-size)
		for _, f := range []header.TCPFlags{header.TCPFlagSyn, header.TCPFlagFin} {
			if in.Flags().Contains(f) {
				fields.AckNum++
			}
		}
	}
	b, reply := appendReplyHeaders(b, frame, p, ProtocolTCP, header.TCPMinimumSize)
	out := header.TCP(reply)
	out.Encode(&fields)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(p.Dst), address(p.Src), uint16(len(out)))
	out.SetChecksum(^checksum.Checksum(out, sum))
	return b
}

// address returns an address as gVisor has it.
func address(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

// appendProhibited appends an ICMP error that quotes the packet.
func appendProhibited(b, frame []byte, p *Parsed, mtu int) []byte {
	const icmpHeader = 8
	quoted := frame[p.Network:p.End]
	if p.Kind == IPv4 {
		room := min(maxICMPErrorIPv4, p.PacketMTU(mtu)) - header.IPv4MinimumSize - icmpHeader
		quoted = quoted[:min(len(quoted), max(room, 0))]
		b, reply := appendReplyHeaders(b, frame, p, ProtocolICMP, icmpHeader+len(quoted))
		out := header.ICMPv4(reply)
		out.SetType(header.ICMPv4DstUnreachable)
		out.SetCode(header.ICMPv4AdminProhibited)
		copy(out[icmpHeader:], quoted)
		out.SetChecksum(^checksum.Checksum(out, 0))
		return b
	}
	room := min(maxICMPErrorIPv6, p.PacketMTU(mtu)) - header.IPv6MinimumSize - icmpHeader
	quoted = quoted[:min(len(quoted), max(room, 0))]
	b, reply := appendReplyHeaders(b, frame, p, ProtocolICMPv6, icmpHeader+len(quoted))
	out := header.ICMPv6(reply)
	out.SetType(header.ICMPv6DstUnreachable)
	out.SetCode(header.ICMPv6Prohibited)
	copy(out[icmpHeader:], quoted)
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, address(p.Dst), address(p.Src), uint16(len(out)))
	out.SetChecksum(^checksum.Checksum(out, sum))
	return b
}

// appendReplyHeaders appends the link and network headers back to a packet's
// sender, with its VLAN tags and LLC header, and size zero bytes, which it
// returns too.
func appendReplyHeaders(b, frame []byte, p *Parsed, protocol uint8, size int) (all, upper []byte) {
	const mac = header.EthernetAddressSize
	link := len(b)
	b = append(b, frame[mac:2*mac]...)
	b = append(b, frame[:mac]...)
	b = append(b, frame[2*mac:p.Network]...)
	network := header.IPv6MinimumSize
	if p.Kind == IPv4 {
		network = header.IPv4MinimumSize
	}
	at := len(b)
	for range network + size {
		b = append(b, 0)
	}
	p.SetLength(b[link:])
	ip := b[at:]
	if p.Kind == IPv4 {
		const dontFragment = 0x40 // so its identification may be 0 (RFC 6864 §4.1)
		ip[0], ip[6], ip[8], ip[9] = header.IPv4Version<<4|header.IPv4MinimumSize/4, dontFragment, replyHopLimit, protocol
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		src, dst := p.Dst.As4(), p.Src.As4()
		copy(ip[12:], src[:])
		copy(ip[16:], dst[:])
		header.IPv4(ip).SetChecksum(^checksum.Checksum(ip[:network], 0))
	} else {
		ip[0], ip[6], ip[7] = header.IPv6Version<<4, protocol, replyHopLimit
		binary.BigEndian.PutUint16(ip[4:], uint16(size))
		src, dst := p.Dst.As16(), p.Src.As16()
		copy(ip[8:], src[:])
		copy(ip[24:], dst[:])
	}
	return b, ip[network:]
}
