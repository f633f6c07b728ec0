package packet

import (
	"encoding/binary"

	"fragwall/packet/checksum"
)

// Where the header of UDP has its length and its checksum, in bytes (RFC 768).
const (
	udpLengthField   = 4
	udpChecksumField = 6
)

// ChecksumValid reports whether a host would take the datagram by the checksum
// of its transport header. It is true where the protocol has none, where the
// checksum is the NIC's to compute or was compared by it, where not all that it
// covers is at hand, and for UDP-Lite, whose datagrams pass with errors.
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

// sums reports whether the Internet checksum of an upper-layer packet and its
// pseudo-header is right.
func (v *View) sums(b []byte) bool {
	return checksum.Sum(b, checksum.PseudoHeader(v.Src, v.Dst, v.Protocol, len(b))) == checksum.Valid
}
