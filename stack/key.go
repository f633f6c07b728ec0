package stack

import (
	"encoding/binary"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// key tells datagrams apart: what RFC 791 §3.2 and RFC 8200 §4.5 name, and
// what keeps the sides and the VLANs from ever meeting. It is all numbers and
// without gaps, so that it hashes as one block of memory.
type key struct {
	src, dst [16]byte
	vlans    packet.VLANs
	id       uint32
	protocol uint16 // of IPv4; fragments of an IPv6 datagram may differ in theirs
	side     verdict.Side
	family   family
}

func keyOf(p *packet.Parsed, side verdict.Side) key {
	k := key{
		src: p.Src.As16(), dst: p.Dst.As16(),
		vlans: p.VLANs(), id: p.Fragment.ID, side: side, family: familyOf(p),
	}
	if k.family == familyIPv4 {
		k.protocol = uint16(p.Protocol)
	}
	return k
}

// source is whom the table holds to account for what waits: all hosts of a
// network on one side, since one that can send from any address of its own is
// still one sender. It is the prefix, which takes no more than 7 bytes, the
// family and the side.
type source uint64

// Lengths in bits of the prefixes that stand for one sender: an IPv4 network
// as the internet routes it at the smallest, and what an IPv6 site is given
// (RFC 6177).
const (
	sourceBitsIPv4 = 24
	sourceBitsIPv6 = 56
)

// source returns whom a datagram is accounted to.
func (k *key) source() source {
	prefix, bits := binary.BigEndian.Uint64(k.src[:8]), sourceBitsIPv6
	if k.family == familyIPv4 {
		prefix, bits = uint64(binary.BigEndian.Uint32(k.src[12:]))<<32, sourceBitsIPv4
	}
	return source(prefix&^(1<<(64-bits)-1) | uint64(k.family)<<1 | uint64(k.side))
}

// family indexes what is kept for each family of addresses.
type family uint8

const (
	familyIPv4 family = iota
	familyIPv6
	families = 2
)

func familyOf(p *packet.Parsed) family {
	if p.Kind == packet.IPv4 {
		return familyIPv4
	}
	return familyIPv6
}
