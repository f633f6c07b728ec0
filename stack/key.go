package stack

import (
	"net/netip"

	"fragwall/packet"
)

// key tells datagrams apart: what RFC 791 §3.2 and RFC 8200 §4.5 name, and
// what keeps the sides and the VLANs from ever meeting. Priority bits of a
// tag may differ between the fragments of a datagram.
type key struct {
	src, dst netip.Addr
	vlans    [2]vlan
	id       uint32
	side     packet.Side
	protocol uint8 // of IPv4; fragments of an IPv6 datagram may differ in theirs
}

type vlan struct{ tpid, vid uint16 }

func keyOf(p *packet.Parsed, side packet.Side) key {
	k := key{src: p.Src, dst: p.Dst, id: p.Fragment.ID, side: side}
	if p.Kind == packet.IPv4 {
		k.protocol = p.Protocol
	}
	for i, tag := range p.Tags[:p.TagCount] {
		k.vlans[i] = vlan{tag.TPID, tag.VID()}
	}
	return k
}

// source is whom the table holds to account for what waits: all hosts of a
// network, since one that can send from any address of its own is still one
// sender.
type source struct {
	prefix [16]byte // the address without its host bits
	family family
	side   packet.Side
}

// Lengths in bits of the prefixes that stand for one sender: an IPv4 network
// as the internet routes it at the smallest, and what an IPv6 site is given
// (RFC 6177).
const (
	sourceBitsIPv4 = 24
	sourceBitsIPv6 = 56
)

func sourceOf(p *packet.Parsed, side packet.Side) source {
	s := source{family: familyOf(p), side: side}
	if s.family == familyIPv4 {
		b := p.Src.As4()
		copy(s.prefix[:], b[:sourceBitsIPv4/8])
	} else {
		b := p.Src.As16()
		copy(s.prefix[:], b[:sourceBitsIPv6/8])
	}
	return s
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
