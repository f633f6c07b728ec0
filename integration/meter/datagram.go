package meter

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"fragwall/packet/verdict"
)

// A datagram begins with a header, big-endian:
//
//	0   4   CRC-32C of the rest
//	4   2   flow
//	6   1   side of the sender
//	7   1   0
//	8   8   number, counted from 0 per flow and sender
//	16  8   time of sending, in nanoseconds since 1970
//
// The rest of the datagram repeats the number.
const headerSize = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorrupted is the error of a datagram whose content differs from what was sent.
var errCorrupted = errors.New("corrupted")

// seal fills b with a datagram.
func seal(b []byte, flow uint16, from verdict.Side, number uint64, sent int64) {
	binary.BigEndian.PutUint16(b[4:], flow)
	b[6], b[7] = byte(from), 0
	binary.BigEndian.PutUint64(b[8:], number)
	binary.BigEndian.PutUint64(b[16:], uint64(sent))
	rest := b[headerSize:]
	for ; len(rest) >= 8; rest = rest[8:] {
		binary.BigEndian.PutUint64(rest, number)
	}
	for i := range rest {
		rest[i] = byte(number)
	}
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// open parses and verifies a datagram of a length, flow and side.
func open(b []byte, size int, flow uint16, from verdict.Side) (number uint64, sent int64, err error) {
	if len(b) != size || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) ||
		binary.BigEndian.Uint16(b[4:]) != flow || b[6] != byte(from) {
		return 0, 0, errCorrupted
	}
	return binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint64(b[16:])), nil
}
