package filter

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"fragwall/packet"
)

// flow is an exchange between two hosts, one on each side, that the policy
// accepted.
type flow struct {
	key  flowKey
	seen time.Duration // of the clock: the last datagram

	chain, next  uint32 // of its hash; the next flow in it
	older, newer uint32 // among the flows of its source, by when they were seen
	source       uint32 // number in the shard; nil32 where the flow is unused

	generation uint32 // of the table that accepted it
	rule       uint32 // of that table; none where its default did
	origin     packet.Side
	state      flowState
	fragmented bool // its first datagram came in fragments
	ends       [packet.Sides]tcpEnd
}

// flowKey names a flow, the same for datagrams of both directions: what is on
// which side tells them apart.
type flowKey struct {
	in, out [2]uint64 // addresses, of the inside and of the outside host
	ports   uint64    // see set
	tags    uint64    // VLAN identifiers, with how many there are
}

// set makes the key of what a datagram from a side has: two addresses and two
// ports, and its VLAN tags. The key is not set yet.
func (k *flowKey) set(from packet.Side, src, dst netip.Addr, srcPort, dstPort uint16, protocol uint8, d *packet.Parsed) {
	if from == packet.Outside {
		src, dst, srcPort, dstPort = dst, src, dstPort, srcPort
	}
	k.in, k.out = words(src), words(dst)
	family := uint64(0)
	if src.Is6() {
		family = 1
	}
	k.ports = uint64(srcPort)<<32 | uint64(dstPort)<<16 | uint64(protocol)<<8 | family
	for _, tag := range d.Tags[:d.TagCount] {
		k.tags = k.tags<<16 | 1<<12 | uint64(tag.VID())
	}
}

// is reports whether two keys are the same.
func (k *flowKey) is(other *flowKey) bool {
	return k.ports == other.ports && k.in == other.in && k.out == other.out && k.tags == other.tags
}

// words returns an address as [netip.Addr.As16] has it.
func words(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// address returns an address of a key.
func (k *flowKey) address(w [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w[0])
	binary.BigEndian.PutUint64(b[8:], w[1])
	a := netip.AddrFrom16(b)
	if k.ports&1 == 0 {
		return a.Unmap()
	}
	return a
}

// hash is keyed, so that nobody outside can aim at one shard or chain.
func (k *flowKey) hash(secret [2]uint64) uint64 {
	h := mix(k.in[0]^secret[0], k.in[1]^secret[1])
	h = mix(h^k.out[0]^secret[1], k.out[1]^secret[0])
	return mix(h^k.ports^secret[0], k.tags^secret[1]^h)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// flowState is how far a flow has come.
type flowState uint8

const (
	tcpSynSent     flowState = iota // SYN from the origin
	tcpSynReceived                  // answered by a SYN
	tcpEstablished
	tcpUnanswered // taken up in its midst, and nothing came back yet
	tcpFinWait    // FIN from one side
	tcpCloseWait  // acknowledged by the other
	tcpLastAck    // FIN from both
	tcpTimeWait   // acknowledged by both
	tcpClosed     // RST
	udpOneWay
	udpStream // answered
	icmpQuery
	otherFlow
)

// flowTimeouts are how long a flow is kept without a datagram: the kernel's
// defaults (Documentation/networking/nf_conntrack-sysctl.rst, in brackets the
// end of nf_conntrack_…_timeout…).
var flowTimeouts = [...]time.Duration{
	tcpSynSent:     120 * time.Second,    // tcp_syn_sent
	tcpSynReceived: 60 * time.Second,     // tcp_syn_recv
	tcpEstablished: 432000 * time.Second, // tcp_established
	tcpUnanswered:  300 * time.Second,    // tcp_unacknowledged
	tcpFinWait:     120 * time.Second,    // tcp_fin_wait
	tcpCloseWait:   60 * time.Second,     // tcp_close_wait
	tcpLastAck:     30 * time.Second,     // tcp_last_ack
	tcpTimeWait:    120 * time.Second,    // tcp_time_wait
	tcpClosed:      10 * time.Second,     // tcp_close
	udpOneWay:      30 * time.Second,     // udp
	udpStream:      120 * time.Second,    // udp_stream
	icmpQuery:      30 * time.Second,     // icmp, icmpv6
	otherFlow:      600 * time.Second,    // generic
}

// expired reports whether nothing more is taken for the flow's.
func (f *flow) expired(now time.Duration) bool { return now-f.seen > flowTimeouts[f.state] }

// ICMP queries and their replies (RFC 792, RFC 950, RFC 4443): the query's
// type by either one's.
var (
	icmpQueries   = map[uint8]uint8{8: 8, 0: 8, 13: 13, 14: 13, 15: 15, 16: 15, 17: 17, 18: 17}
	icmpv6Queries = map[uint8]uint8{128: 128, 129: 128}
)

// queryOf returns the query's type for a message that belongs to one.
func queryOf(protocol, icmpType uint8) (query uint8, ok bool) {
	if protocol == packet.ProtocolICMPv6 {
		query, ok = icmpv6Queries[icmpType]
	} else {
		query, ok = icmpQueries[icmpType]
	}
	return query, ok
}

// icmpPorts stands in for the ports in the key of an ICMP query: the
// identifier and, so that both sides may use the same one, the query's type
// and who asks.
func icmpPorts(from packet.Side, query, icmpType uint8, id uint16) (src, dst uint16) {
	asks := from
	if icmpType != query {
		asks = from.Other()
	}
	src, dst = id, uint16(query)<<1|uint16(asks)
	if from == packet.Outside { // set swaps them back
		src, dst = dst, src
	}
	return src, dst
}

// icmpHeader is how long the header of ICMP queries and errors is.
const icmpHeader = 8

// setOf makes the key of the flow that a datagram belongs to, or begins; ok is
// false for what has none.
func (k *flowKey) setOf(d *packet.View) (ok bool) {
	src, dst := d.SrcPort, d.DstPort
	switch {
	case d.Transport == packet.Truncated, packet.HasPorts(d.Protocol) && d.Transport != packet.Ports:
		return false
	case d.Transport == packet.ICMP:
		query, ok := queryOf(d.Protocol, d.ICMPType)
		if !ok || len(d.Body) < icmpHeader {
			return false
		}
		src, dst = icmpPorts(d.From, query, d.ICMPType, binary.BigEndian.Uint16(d.Body[4:]))
	}
	k.set(d.From, d.Src, d.Dst, src, dst, d.Protocol, d.Parsed)
	return true
}

// begin returns the state of the flow that an accepted datagram begins; ok is
// false where it begins none: answers that nobody asked for, what ends a
// connection, and what goes to a group, which has no one to reply.
func begin(d *packet.View) (s flowState, ok bool) {
	if d.Dst.IsMulticast() {
		return s, false
	}
	switch {
	case d.Protocol == packet.ProtocolTCP:
		return beginTCP(d.Body)
	case d.Transport == packet.ICMP:
		query, _ := queryOf(d.Protocol, d.ICMPType)
		return icmpQuery, query == d.ICMPType
	case d.Protocol == packet.ProtocolUDP, d.Protocol == packet.ProtocolUDPLite:
		return udpOneWay, true
	}
	return otherFlow, true
}

// advance brings a flow on by a datagram of its own.
func (f *flow) advance(d *packet.View) {
	switch {
	case d.Protocol == packet.ProtocolTCP:
		f.advanceTCP(d)
	case f.state == udpOneWay && d.From != f.origin:
		f.state = udpStream
	}
}
