package wire

import (
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// Offsets of the checksum in the headers of TCP and UDP, and the minimum lengths of these
// headers, in bytes (RFC 9293 §3.1, RFC 768).
const (
	tcpChecksum = 16
	udpChecksum = 6
	tcpHeader   = 20
	udpHeader   = 8
)

// checkOffload checks a frame's Offload against the packet that was decoded from it. The
// Offload comes from the sender of the frame. It tells the kernel what to do with the packet
// after the policy has judged it: where to store a checksum, and where the headers end that are
// copied to every segment. It is invalid if it would change what the policy read, or would make
// the kernel read other headers than the policy did.
//
// length is the length of the longest packet that the frame stands for, in bytes.
func checkOffload(f *tun.Frame, p *packet.Parsed) (length int, why verdict.Reason) {
	o := &f.Offload
	if o.Flags&tun.NeedsChecksum != 0 && !checksumSound(o, p) {
		return 0, verdict.OffloadHeader
	}
	length = p.Length(f.Data)
	if !o.Segmented() {
		return length, verdict.Passed
	}
	headers, ok := segmentHeaders(f, p)
	if !ok || p.End != len(f.Data) || o.SegmentSize == 0 {
		return 0, verdict.OffloadHeader
	}
	return min(length, headers+int(o.SegmentSize)), verdict.Passed
}

// checksumSound reports whether the checksum covers only what follows the IP header, and is
// stored either in the packet's own checksum field or after everything that the policy reads:
// for TCP this is the whole header, which connection tracking uses. A checksum after a UDP
// header is that of a tunnelled packet.
func checksumSound(o *tun.Offload, p *packet.Parsed) bool {
	start := int(o.ChecksumStart)
	field := start + int(o.ChecksumOffset)
	if field+2 > p.End {
		return false
	}
	switch {
	case p.Fragment.Present && p.Fragment.Offset > 0: // read after the checksum has been completed
		return start >= p.Fragment.Payload
	case p.Kind != packet.IPv4 && p.Kind != packet.IPv6:
		return start >= p.Network && p.LLC == 0 // its header tells IP from other protocols
	case start < p.Upper:
		return false
	case p.Protocol == packet.ProtocolTCP:
		return start == p.Upper && field == p.Upper+tcpChecksum
	case p.Protocol == packet.ProtocolUDP:
		return field == p.Upper+udpChecksum || field >= p.Upper+udpHeader
	case p.Transport == packet.Ports:
		return field >= p.Upper+4
	case p.Transport == packet.ICMP:
		return field >= p.Upper+2
	}
	return true
}

// segmentHeaders returns the length of the headers, from the network header on, of each packet
// that the frame is segmented into. It returns false if the packet does not have the type that
// the Offload says, or if it follows LLC, whose length would not be set in the segments.
func segmentHeaders(f *tun.Frame, p *packet.Parsed) (int, bool) {
	o := &f.Offload
	if p.Transport != packet.Ports || p.Fragment.Present || p.LLC > 0 {
		return 0, false
	}
	var protocol uint8
	var size, field int
	switch o.GSO {
	case tun.GSOTCPv4, tun.GSOTCPv4 | tun.GSOECN, tun.GSOTCPv6, tun.GSOTCPv6 | tun.GSOECN:
		if (p.Kind == packet.IPv4) != (o.GSO&^tun.GSOECN == tun.GSOTCPv4) || p.Upper+tcpHeader > p.End {
			return 0, false
		}
		protocol, size, field = packet.ProtocolTCP, int(f.Data[p.Upper+12]>>4)*4, tcpChecksum
		if size < tcpHeader {
			return 0, false
		}
	case tun.GSOUDP:
		protocol, size, field = packet.ProtocolUDP, udpHeader, udpChecksum
	default:
		return 0, false
	}
	if p.Protocol != protocol || p.Upper+size > p.End {
		return 0, false
	}
	if o.Flags&tun.NeedsChecksum != 0 && (int(o.ChecksumStart) != p.Upper || int(o.ChecksumOffset) != field) {
		return 0, false
	}
	return p.Upper + size - p.Network, true
}
