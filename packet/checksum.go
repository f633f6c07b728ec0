package packet

import (
	"encoding/binary"

	"fragwall/packet/checksum"
)

// Offsets of the length and the checksum in a UDP header, in bytes (RFC 768).
const (
	udpLengthField   = 4
	udpChecksumField = 6
)

// ChecksumValid reports whether a host would accept the checksum of the transport header.
// It is true if the protocol has no checksum, if the NIC computes or has verified it, if
// a part of what it covers is not available, and for UDP-Lite, whose datagrams may pass
// with errors.
func (v *View) ChecksumValid() bool {
	if v.Verified || v.Partial() || len(v.Body) != v.BodyLength {
		return true
	}
	b := v.Body
	switch {
	case v.Protocol == ProtocolTCP, v.Protocol == ProtocolICMPv6 && v.Kind == IPv6:
		return v.sums(b)
	case v.Protocol == ProtocolICMP && v.Kind == IPv4:
		return checksum.Sum(b, 0) == checksum.Valid
	case v.Protocol == ProtocolUDP && len(b) >= SizeUDP:
		if binary.BigEndian.Uint16(b[udpChecksumField:]) == 0 {
			return true // not computed: RFC 768, RFC 6935
		}
		length := int(binary.BigEndian.Uint16(b[udpLengthField:]))
		if length < SizeUDP || length > len(b) {
			return false
		}
		return v.sums(b[:length])
	case v.Protocol == ProtocolSCTP && len(b) >= SizeSCTP:
		return checksum.ValidSCTP(b)
	}
	return true
}

// sums reports whether the Internet checksum of an upper-layer packet, with its
// pseudo-header, is correct.
func (v *View) sums(b []byte) bool {
	return checksum.Sum(b, checksum.PseudoHeader(v.Src, v.Dst, v.Protocol, len(b))) == checksum.Valid
}
