package checksum

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Valid is the sum of bytes that include their own correct checksum (RFC 1071 §1).
const Valid = 0xffff

// Sum returns the ones' complement sum of initial and of b, read as 16-bit numbers in
// network byte order, with a zero byte after an odd length. The Internet checksum is its
// complement (RFC 1071 §1).
//
// Sum adds 64 bits at a time in the other byte order, and swaps the bytes of the result
// (RFC 1071 §2(B), §2(C)).
func Sum(b []byte, initial uint16) uint16 {
	sum, carry := uint64(bits.ReverseBytes16(initial)), uint64(0)
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:]), carry)
		sum, _ = bits.Add64(sum, 0, carry)
		b = b[64:]
	}
	if len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, _ = bits.Add64(sum, 0, carry)
		b = b[32:]
	}
	if len(b) >= 16 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, _ = bits.Add64(sum, 0, carry)
		b = b[16:]
	}
	if len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, _ = bits.Add64(sum, 0, carry)
		b = b[8:]
	}
	tail := uint64(0) // less than 8 bytes
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0])
	}
	sum, carry = bits.Add64(sum, tail, 0)
	sum, _ = bits.Add64(sum, 0, carry)
	return bits.ReverseBytes16(fold(sum))
}

// fold adds the four 16-bit numbers of a sum, with end-around carry.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffff_ffff
	sum = sum>>32 + sum&0xffff_ffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// Add returns the ones' complement sum of two sums.
func Add(a, b uint16) uint16 {
	sum := uint32(a) + uint32(b)
	return uint16(sum + sum>>16)
}

// PseudoHeader returns the sum of the pseudo-header that the checksums of TCP, UDP and
// ICMPv6 cover (RFC 9293 §3.1, RFC 8200 §8.1). length is the length of the upper-layer
// packet in bytes. Both addresses belong to one family.
func PseudoHeader(src, dst netip.Addr, protocol uint8, length int) uint16 {
	sum := Add(Add(uint16(length>>16), uint16(length)), uint16(protocol))
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		return Sum(d[:], Sum(s[:], sum))
	}
	s, d := src.As16(), dst.As16()
	return Sum(d[:], Sum(s[:], sum))
}

// Put completes a checksum: at the offset field, in bytes, it stores the complement of
// the sum of b and initial, computed with zeros in the field.
func Put(b []byte, field int, initial uint16) {
	b[field], b[field+1] = 0, 0
	binary.BigEndian.PutUint16(b[field:], ^Sum(b, initial))
}
