package flow

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Key identifies a flow. Datagrams of both directions have the same key, since it is ordered by
// side. Its layout, 48 bytes without padding, is shared with the fast path.
type Key struct {
	// Inside and Outside are the addresses of the hosts, in the form of [netip.Addr.As16], as
	// two numbers of 8 bytes each in big-endian order.
	Inside, Outside [2]uint64
	// Ports holds, from the most significant bit: 16 zero bits; the port of the inside host and
	// the port of the outside host, 16 bits each; the protocol; and the IP version, 0 for IPv4
	// and 1 for IPv6, 8 bits each. For an ICMP query and its reply, the identifier replaces the
	// port of the inside host. The port of the outside host is replaced by 8 bits of code, 7
	// bits of the query's number, and 1 bit for the side that sent the query.
	Ports uint64
	// VLANs holds two VLANs, the outermost one in the upper half: 16 bits of TPID and 16 bits
	// of identifier each. A frame in one VLAN has it in the upper half.
	VLANs uint64
}

// set makes the key of a datagram that arrived on a side.
func (k *Key) set(from verdict.Side, src, dst netip.Addr, srcPort, dstPort uint16, protocol uint8, vlans uint64) {
	if from == verdict.Outside {
		src, dst, srcPort, dstPort = dst, src, dstPort, srcPort
	}
	k.Inside, k.Outside = words(src), words(dst)
	version := uint64(0)
	if src.Is6() {
		version = 1
	}
	k.Ports = uint64(srcPort)<<32 | uint64(dstPort)<<16 | uint64(protocol)<<8 | version
	k.VLANs = vlans
}

func (k *Key) protocol() uint8 { return uint8(k.Ports >> 8) }

// is reports whether two keys identify the same flow.
func (k *Key) is(other *Key, anyVLANs bool) bool {
	return k.Ports == other.Ports && k.Inside == other.Inside && k.Outside == other.Outside && (anyVLANs || k.VLANs == other.VLANs)
}

// hash is a keyed hash. A sender that does not know the secret cannot choose addresses that
// fall into one shard or chain.
func (k *Key) hash(secret [2]uint64, anyVLANs bool) uint64 {
	vlans := k.VLANs
	if anyVLANs {
		vlans = 0
	}
	h := mix(k.Inside[0]^secret[0], k.Inside[1]^secret[1])
	h = mix(h^k.Outside[0]^secret[1], k.Outside[1]^secret[0])
	return mix(h^k.Ports^secret[0], vlans^secret[1]^h)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// packVLANs returns the VLANs of a datagram as one number: 16 bits of TPID and 16 bits of
// identifier each.
func packVLANs(v *packet.View) (packed uint64) {
	if v.TagCount == 0 {
		return 0
	}
	for _, tag := range v.VLANs() {
		packed = packed<<32 | uint64(tag.TPID)<<16 | uint64(tag.TCI)
	}
	return packed
}

func unpackVLANs(packed uint64) (v packet.VLANs) {
	for i := range v {
		half := uint32(packed >> (32 * (len(v) - 1 - i)))
		v[i] = packet.Tag{TPID: uint16(half >> 16), TCI: uint16(half)}
	}
	return v
}

// words returns an address in the form that the key stores.
func words(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// address returns an address of the key.
func (k *Key) address(w [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w[0])
	binary.BigEndian.PutUint64(b[8:], w[1])
	a := netip.AddrFrom16(b)
	if k.Ports&1 == 0 {
		return a.Unmap()
	}
	return a
}

// setOf makes the key of the flow that a datagram belongs to or begins. It returns false for a
// datagram of no flow, for example an ICMP error.
func (k *Key) setOf(v *packet.View) bool {
	src, dst := v.SrcPort, v.DstPort
	switch {
	case v.Transport == packet.Truncated, packet.HasPorts(v.Protocol) && v.Transport != packet.Ports:
		return false
	case v.Transport == packet.ICMP:
		q, ok := queryOf(v.Protocol, v.ICMPType)
		if !ok || len(v.Body) < icmpHeader {
			return false
		}
		src, dst = q.ports(v.From, v.ICMPCode, binary.BigEndian.Uint16(v.Body[4:]))
	}
	k.set(v.From, v.Src, v.Dst, src, dst, v.Protocol, packVLANs(v))
	return true
}

// SetFast makes the key of the flow that a datagram belongs to or begins, as the fast path
// knows it: without VLANs if flows are independent of them. It returns false for datagrams that
// the fast path does not handle: everything except TCP, UDP, and queries and replies of ICMP
// echo.
func (k *Key) SetFast(v *packet.View, anyVLANs bool) bool {
	switch {
	case v.Transport == packet.ICMP:
		if q, ok := queryOf(v.Protocol, v.ICMPType); !ok || q.number != echo {
			return false
		}
	case v.Protocol != packet.ProtocolTCP && v.Protocol != packet.ProtocolUDP:
		return false
	}
	if !k.setOf(v) {
		return false
	}
	if anyVLANs {
		k.VLANs = 0
	}
	return true
}

// First returns the first datagram of a flow, which arrived on the originator's side, as rules
// see it. It decodes into p.
func (k *Key) First(p *packet.Parsed, origin verdict.Side, fragmented bool) packet.View {
	*p = packet.Parsed{
		Kind: packet.IPv6, Src: k.address(k.Inside), Dst: k.address(k.Outside), Protocol: k.protocol(),
		SrcPort: uint16(k.Ports >> 32), DstPort: uint16(k.Ports >> 16), Fragmented: fragmented,
	}
	if p.Src.Is4() {
		p.Kind = packet.IPv4
	}
	if packet.HasPorts(p.Protocol) {
		p.Transport = packet.Ports
	} else if isICMP(p.Kind, p.Protocol) {
		p.Transport = packet.ICMP
		p.ICMPType, p.ICMPCode = unpackQuery(p.Protocol, p.DstPort)
	}
	if origin == verdict.Outside {
		p.Src, p.Dst = p.Dst, p.Src
		p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
	}
	vlans := unpackVLANs(k.VLANs)
	p.TagCount = uint8(copy(p.Tags[:], vlans[:vlans.Len()]))
	return packet.View{Parsed: p, From: origin}
}
