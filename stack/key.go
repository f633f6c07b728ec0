package stack

import (
	"encoding/binary"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// key identifies a datagram: by the fields that RFC 791 §3.2 and RFC 8200 §4.5 name, and by
// side and VLANs, so that datagrams of different sides or VLANs never mix. It consists of
// numbers only and has no padding, so it hashes as one block of memory.
type key struct {
	src, dst [16]byte
	vlans    packet.VLANs
	id       uint32
	protocol uint16 // of IPv4; fragments of an IPv6 datagram may have different ones
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

// source identifies the sender that held fragments are charged to. It stands for all hosts of a
// network on one side, since a host that can send from any address of its network is still one
// sender. It consists of the prefix, which takes at most 7 bytes, the family and the side.
type source uint64

// Lengths in bits of the prefixes that stand for one sender: the smallest IPv4 network that is
// routed on the internet, and the prefix that an IPv6 site is assigned (RFC 6177).
const (
	sourceBitsIPv4 = 24
	sourceBitsIPv6 = 56
)

// source returns the source that a datagram is charged to.
func (k *key) source() source {
	prefix, bits := binary.BigEndian.Uint64(k.src[:8]), sourceBitsIPv6
	if k.family == familyIPv4 {
		prefix, bits = uint64(binary.BigEndian.Uint32(k.src[12:]))<<32, sourceBitsIPv4
	}
	return source(prefix&^(1<<(64-bits)-1) | uint64(k.family)<<1 | uint64(k.side))
}

// family is an index for state that is kept per address family.
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
