package checksum

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Offset and size of the checksum in the common header of SCTP, in bytes (RFC 9260 §3.1).
const (
	sctpField = 8
	sctpSize  = 4
)

// ValidSCTP reports whether the CRC32c of an SCTP packet is correct. It is computed with
// zeros in its place (RFC 9260 §6.8). The packet has at least its common header.
func ValidSCTP(b []byte) bool {
	var zeros [sctpSize]byte
	sum := crc32.Update(0, castagnoli, b[:sctpField])
	sum = crc32.Update(sum, castagnoli, zeros[:])
	sum = crc32.Update(sum, castagnoli, b[sctpField+sctpSize:])
	return sum == binary.LittleEndian.Uint32(b[sctpField:])
}
