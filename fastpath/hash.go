package fastpath

import (
	"encoding/binary"
	"net/netip"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// hash is the hash of the programs (bpf/maps.h).
func (m *memory) hash(k *flow.Key) uint32 {
	h := mix(m.config.Secret[0], k.Inside[0])
	for _, word := range [...]uint64{k.Inside[1], k.Outside[0], k.Outside[1], k.Ports, k.VLANs} {
		h = mix(h, word)
	}
	return uint32(mix(h, m.config.Secret[1]) >> 32)
}

func mix(h, word uint64) uint64 {
	h = (h ^ word) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// Numbers of orders: of flows, and of pairs of addresses (ORDERS and PAIRS in bpf/maps.h).
const (
	packetOrders   = 32768
	fragmentOrders = 4096
)

// orderOf returns the index of the order of a flow's whole packets that arrive on a side
// (order_hash in bpf/order.h).
func (m *memory) orderOf(k *flow.Key, from verdict.Side) uint32 {
	return m.orderHash(k, from) % packetOrders
}

// orderHash returns the hash that distinguishes the flows of one order.
func (m *memory) orderHash(k *flow.Key, from verdict.Side) uint32 {
	way := *k
	way.VLANs |= uint64(from) << 63
	return m.hash(&way)
}

// pairOf returns the index of the order of frames without ports, such as fragments, that arrive
// on a side, between the addresses of a key (order_hash in bpf/order.h).
func (m *memory) pairOf(k *flow.Key, from verdict.Side) uint32 {
	protocol, ipv6 := k.Ports>>8&0xff, k.Ports&1
	if ipv6 == 1 {
		protocol = 0
	}
	pair := flow.Key{Inside: k.Inside, Outside: k.Outside, Ports: protocol<<8 | uint64(from)<<1 | ipv6}
	return packetOrders + m.hash(&pair)%fragmentOrders
}

// datagramKey returns the key of a fragment's datagram (datagram_key in bpf/order.h).
func datagramKey(p *packet.Parsed, from verdict.Side) flow.Key {
	k := flow.Key{Inside: words(p.Src), Outside: words(p.Dst)}
	if from == verdict.Outside {
		k.Inside, k.Outside = k.Outside, k.Inside
	}
	k.Ports = uint64(p.Fragment.ID)<<32 | uint64(from)<<1
	if p.Kind == packet.IPv6 {
		k.Ports |= 1
	} else {
		k.Ports |= uint64(p.Protocol) << 8
	}
	for _, tag := range p.VLANs() {
		k.VLANs = k.VLANs<<32 | uint64(tag.TPID)<<16 | uint64(tag.TCI)
	}
	return k
}

// datagramOf fills in the fields of a fragment's header from a datagram's key, and returns the
// datagram's ingress side.
func datagramOf(k *flow.Key, p *packet.Parsed) (from verdict.Side) {
	from = verdict.Side(k.Ports >> 1 & 1)
	src, dst := address(k.Inside), address(k.Outside)
	if from == verdict.Outside {
		src, dst = dst, src
	}
	*p = packet.Parsed{Kind: packet.IPv6, Src: src, Dst: dst}
	if k.Ports&1 == 0 {
		p.Kind, p.Src, p.Dst, p.Protocol = packet.IPv4, src.Unmap(), dst.Unmap(), uint8(k.Ports>>8)
	}
	p.Fragment = packet.Fragment{Present: true, ID: uint32(k.Ports >> 32)}
	for _, tag := range [...]uint32{uint32(k.VLANs >> 32), uint32(k.VLANs)} {
		if tag != 0 {
			p.Tags[p.TagCount] = packet.Tag{TPID: uint16(tag >> 16), TCI: uint16(tag)}
			p.TagCount++
		}
	}
	return from
}

// address returns an address of a [flow.Key].
func address(w [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w[0])
	binary.BigEndian.PutUint64(b[8:], w[1])
	return netip.AddrFrom16(b)
}

// words returns an address in the form that a [flow.Key] has.
func words(a netip.Addr) [2]uint64 {
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
