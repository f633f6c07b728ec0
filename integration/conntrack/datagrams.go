package conntrack

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Protocols without a name in package packet.
const (
	protocolDCCP    = 33
	protocolGRE     = 47
	protocolESP     = 50
	protocolSCTP    = 132
	protocolUDPLite = 136
	protocolUnused  = 253 // for experiments (RFC 3692)
)

// datagram returns a UDP or UDP-Lite header with a body of up to 19 bytes. For UDP-Lite too, the
// pseudo-header has the protocol number of UDP: connection tracking verifies the checksum that way
// (udplite_error in net/netfilter/nf_conntrack_proto_udp.c), contrary to RFC 3828 §3.1.
func (s *script) datagram(protocol uint8, src, dst netip.AddrPort) []byte {
	b := make([]byte, 8+s.IntN(20))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	if protocol == packet.ProtocolUDP {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	} // in UDP-Lite this field is the checksum coverage; 0 means the whole datagram
	return checksum(b, 6, src.Addr(), dst.Addr(), packet.ProtocolUDP)
}

// udpExchange adds UDP requests and replies between two ports, packets from a third host, and
// ICMP errors about any of them.
func udpExchange(s *script) { s.ports(packet.ProtocolUDP) }

// ports adds datagrams with a UDP header. It pauses only after [Hold], when the kernel can tell a
// stream from one request with its reply, or before the last packet.
func (s *script) ports(protocol uint8) {
	port := [verdict.Sides]uint16{uint16(1024 + s.IntN(60000)), uint16(1024 + s.IntN(60000))}
	asks := verdict.Inside
	if s.chance(15) {
		asks = verdict.Outside
	}
	n := 2 + s.IntN(8)
	hold := n
	if s.chance(50) {
		hold = 1 + s.IntN(n-1)
	}
	for i := range n {
		from := verdict.Side(s.IntN(2))
		s.held = i == hold
		switch {
		case i == 0:
			from = asks
		case (i > hold || i == n-1) && s.chance(40):
			s.wait()
		}
		src := netip.AddrPortFrom(s.addr(from, 1), port[from])
		dst := netip.AddrPortFrom(s.addr(from.Other(), 1), port[from.Other()])
		honest := true
		switch n := s.IntN(100); {
		case i == 0 || n < 75:
		case n < 80:
			honest = false
			src = netip.AddrPortFrom(src.Addr(), src.Port()^1)
		case n < 85:
			honest = false
			dst = netip.AddrPortFrom(dst.Addr(), dst.Port()^1)
		case n < 88:
			honest = false
			src = netip.AddrPortFrom(s.addr(from, 2), src.Port())
		case n < 98:
			s.report(s.IntN(len(s.Steps)))
			continue
		}
		s.sendAs(from, src.Addr(), dst.Addr(), honest, protocol, s.datagram(protocol, src, dst), "protocol %d from port %d to %d", protocol, src.Port(), dst.Port())
	}
}

// icmpTypes lists the ICMP types to send, for IPv4 and IPv6: queries, their replies, and other
// types. The first icmpQueries of each list are the queries.
var icmpTypes = [2][]uint8{{8, 13, 15, 17, 0, 14, 16, 18, 9, 10, 30, 42, 200}, {128, 128, 139, 129, 140, 144, 145, 200}}
var icmpQueries = [2]int{4, 3}

// icmpExchange adds ICMP queries, replies, and errors about them.
func icmpExchange(s *script) {
	family := 0
	if s.IPv6 {
		family = 1
	}
	types := icmpTypes[family]
	query, id := types[s.IntN(icmpQueries[family])], uint16(s.Uint32())
	if s.chance(10) {
		query = types[s.IntN(len(types))]
	}
	reply := map[uint8]uint8{8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}[query]
	for i := range 2 + s.IntN(8) {
		from, kind, number := verdict.Inside, query, id
		if s.chance(50) && i > 0 || s.chance(10) {
			from, kind = verdict.Outside, reply
		}
		if i > 0 && s.chance(25) {
			s.wait()
		}
		switch n := s.IntN(100); {
		case i == 0 || n < 70:
		case n < 78:
			number ^= 1
		case n < 88:
			kind = types[s.IntN(len(types))]
		default:
			s.report(s.IntN(len(s.Steps)))
			continue
		}
		b := []byte{kind, 0, 0, 0, 0, 0, 0, byte(i), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
		binary.BigEndian.PutUint16(b[4:], number)
		s.icmp(from, s.addr(from, 1), s.addr(from.Other(), 1), kind < 200, b, "icmp type %d identifier %d", kind, number)
	}
}

// icmp adds an ICMP message with its checksum.
func (s *script) icmp(from verdict.Side, src, dst netip.Addr, honest bool, b []byte, what string, args ...any) {
	protocol := uint8(packet.ProtocolICMP)
	if s.IPv6 {
		protocol = packet.ProtocolICMPv6
		b = checksum(b, 2, src, dst, protocol)
	} else {
		binary.BigEndian.PutUint16(b[2:], 0)
		binary.BigEndian.PutUint16(b[2:], ^sum(0, b))
	}
	s.sendAs(from, src, dst, honest, protocol, b, what, args...)
}

// icmpErrors lists ICMP errors as type and code, for IPv4 and IPv6.
var icmpErrors = [2][][2]uint8{
	{{3, 0}, {3, 1}, {3, 3}, {3, 4}, {4, 0}, {5, 1}, {11, 0}, {12, 0}},
	{{1, 0}, {1, 4}, {2, 0}, {3, 0}, {4, 1}, {100, 0}},
}

// report adds an ICMP error about an earlier step. A correct error arrives on the side that the
// step went to; half of the errors are forged.
func (s *script) report(about int) {
	step := &s.Steps[about]
	family := 0
	if s.IPv6 {
		family = 1
	}
	kind := icmpErrors[family][s.IntN(len(icmpErrors[family]))]
	quote := append([]byte(nil), step.Packet()...)
	_, src, dst, _ := tagOf(quote)
	from, reporter, to := step.From.Other(), dst, src
	if s.chance(40) {
		reporter = s.addr(from, 9) // a router
	}
	honest, what := true, "quoted correctly"
	size := 20
	if s.IPv6 {
		size = 40
	}
	length := min(len(quote), size+8+s.IntN(40))
	if s.chance(50) {
		honest = false
		switch s.IntN(7) {
		case 0:
			length, what = size+s.IntN(8), "quote truncated"
		case 1:
			length, what = s.IntN(size), "quote truncated in the IP header"
		case 2:
			quote[size+s.IntN(4)] ^= 1
			what = "quote with another port"
		case 3:
			quote[size-1] ^= 3
			what = "quote with another destination"
		case 4:
			quote[size/2+1+s.IntN(2)] ^= 3
			what = "quote with another source"
		case 5:
			to, what = s.addr(step.From, 2), "sent to another host"
		case 6:
			from, reporter, to, what = step.From, src, dst, "from the side that sent the packet"
		}
	}
	b := append([]byte{kind[0], kind[1], 0, 0, 0, 0, 5, 0}, quote[:min(length, len(quote))]...)
	s.icmp(from, reporter, to, honest, b, "icmp error %d code %d about packet %d, %s", kind[0], kind[1], about, what)
}

// SCTP chunk types (RFC 9260 §3.2).
var sctpChunks = []struct {
	kind  uint8
	value int // bytes
	name  string
}{
	{1, 16, "INIT"}, {2, 24, "INIT ACK"}, {10, 8, "COOKIE ECHO"}, {11, 0, "COOKIE ACK"}, {0, 16, "DATA"}, {3, 12, "SACK"},
	{4, 8, "HEARTBEAT"}, {5, 8, "HEARTBEAT ACK"}, {6, 0, "ABORT"}, {7, 4, "SHUTDOWN"}, {8, 0, "SHUTDOWN ACK"}, {14, 0, "SHUTDOWN COMPLETE"},
	{9, 4, "ERROR"},
}

// sctpExchange adds the packets of an SCTP association from INIT to shutdown, mostly in order.
func sctpExchange(s *script) {
	port := [verdict.Sides]uint16{uint16(1024 + s.IntN(60000)), uint16(1024 + s.IntN(60000))}
	tags := [verdict.Sides]uint32{s.Uint32() | 1, s.Uint32() | 1} // chosen by each side
	order := []int{0, 1, 2, 3, 4, 5, 9, 10, 11}
	sender := []verdict.Side{0, 1, 0, 1, 0, 1, 0, 1, 0}
	if s.chance(50) { // the other side shuts it down
		copy(sender[6:], []verdict.Side{1, 0, 1})
	}
	odd := []int{0, 15, 30, 50}[s.IntN(4)]
	at := 0
	for range 3 + s.IntN(18) {
		if at > 0 && s.chance(4) {
			s.wait()
		}
		kind, from, verification, honest := order[at%len(order)], sender[at%len(order)], uint32(0), true
		if s.chance(odd) {
			kind, from, honest = s.IntN(len(sctpChunks)), verdict.Side(s.IntN(2)), false
		} else if at++; s.chance(5) {
			at++ // the next packet in order is lost
		}
		if kind != 0 {
			verification = tags[from.Other()]
		}
		if !honest && s.chance(25) {
			verification = []uint32{0, tags[from], s.Uint32()}[s.IntN(3)]
		}
		chunk := sctpChunks[kind]
		b := make([]byte, 12, 64)
		binary.BigEndian.PutUint16(b, port[from])
		binary.BigEndian.PutUint16(b[2:], port[from.Other()])
		binary.BigEndian.PutUint32(b[4:], verification)
		b = append(b, chunk.kind, 0, 0, byte(4+chunk.value))
		value := make([]byte, chunk.value)
		if kind < 2 {
			binary.BigEndian.PutUint32(value, tags[from])
		}
		b = append(b, value...)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		s.send(from, honest, protocolSCTP, b, "sctp %s tag %d", chunk.name, verification)
	}
}

// otherExchange adds packets of another protocol: one with ports (UDP-Lite, DCCP), with keys (GRE),
// or with neither.
func otherExchange(s *script) {
	protocol := []uint8{protocolUDPLite, protocolUDPLite, protocolDCCP, protocolGRE, protocolGRE, protocolESP, protocolUnused}[s.IntN(7)]
	if protocol == protocolUDPLite {
		s.ports(protocol)
		return
	}
	b := make([]byte, 24)
	switch protocol {
	case protocolDCCP: // a request (RFC 4340 §5.1)
		binary.BigEndian.PutUint16(b, uint16(1024+s.IntN(60000)))
		binary.BigEndian.PutUint16(b[2:], uint16(1024+s.IntN(60000)))
		b[4], b[8] = 5, 1
	case protocolGRE: // carries Ethernet, in a few cases PPTP
		binary.BigEndian.PutUint16(b[2:], 0x6558)
		if s.chance(30) {
			copy(b, []byte{0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 1})
		}
	default:
		binary.BigEndian.PutUint32(b, s.Uint32())
	}
	for i := range 2 + s.IntN(6) {
		from := verdict.Side(s.IntN(2))
		if i == 0 && s.chance(85) {
			from = verdict.Inside
		}
		if i > 0 && s.chance(25) {
			s.wait()
		}
		if i > 0 && s.chance(15) {
			s.report(s.IntN(i))
			continue
		}
		body := append([]byte(nil), b...)
		if protocol == protocolDCCP && from == verdict.Outside {
			copy(body, []byte{b[2], b[3], b[0], b[1]})
		}
		if protocol == protocolDCCP {
			body = checksum(body, 6, s.addr(from, 1), s.addr(from.Other(), 1), protocol)
		}
		s.send(from, true, protocol, body, "protocol %d", protocol)
	}
}
