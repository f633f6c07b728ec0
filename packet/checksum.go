package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Where headers have their checksum and the length that it covers, in bytes
// (RFC 768, RFC 9260 §3.1).
const (
	udpLengthField    = 4
	udpChecksumField  = 6
	udpMinimum        = 8
	sctpChecksumField = 8
	sctpMinimum       = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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
		return checksum.Checksum(b, 0) == math.MaxUint16
	case v.Protocol == ProtocolUDP && len(b) >= udpMinimum:
		if binary.BigEndian.Uint16(b[udpChecksumField:]) == 0 {
			return true // not computed: RFC 768, RFC 6935
		}
		length := int(binary.BigEndian.Uint16(b[udpLengthField:]))
		if length < udpMinimum || length > len(b) {
			return false
		}
		return v.sums(b[:length])
	case v.Protocol == ProtocolSCTP && len(b) >= sctpMinimum:
		sum := crc32.Update(0, castagnoli, b[:sctpChecksumField])
		sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
		sum = crc32.Update(sum, castagnoli, b[sctpMinimum:])
		return sum == binary.LittleEndian.Uint32(b[sctpChecksumField:])
	}
	return true
}

// sums reports whether the Internet checksum of an upper-layer packet and its
// pseudo-header is right (RFC 9293 §3.1, RFC 8200 §8.1).
func (v *View) sums(b []byte) bool {
	sum := uint16(0)
	if v.Kind == IPv4 {
		src, dst := v.Src.As4(), v.Dst.As4()
		sum = checksum.Checksum(dst[:], checksum.Checksum(src[:], 0))
	} else {
		src, dst := v.Src.As16(), v.Dst.As16()
		sum = checksum.Checksum(dst[:], checksum.Checksum(src[:], 0))
	}
	sum = checksum.Combine(sum, uint16(len(b)>>16))
	sum = checksum.Combine(sum, uint16(len(b)))
	sum = checksum.Combine(sum, uint16(v.Protocol))
	return checksum.Checksum(b, sum) == math.MaxUint16
}
