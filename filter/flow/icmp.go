package flow

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// icmpHeader is the length of the header of ICMP queries and errors, in bytes (RFC 792, RFC
// 4443 §2.1).
const icmpHeader = 8

// queries are the ICMP queries that are answered by a message of another type (RFC 792, RFC
// 950; RFC 4443, RFC 4620).
var (
	queries   = [...]struct{ query, reply uint8 }{{8, 0}, {13, 14}, {15, 16}, {17, 18}}
	queriesV6 = [...]struct{ query, reply uint8 }{{128, 129}, {139, 140}}
)

// echo is the index of the echo request in both lists.
const echo = 0

// query identifies an ICMP query, by its index in the list, or the reply to it.
type query struct {
	number int
	reply  bool
}

// queryOf returns the query that an ICMP message is or answers.
func queryOf(protocol, icmpType uint8) (q query, ok bool) {
	list := queries[:]
	if protocol == packet.ProtocolICMPv6 {
		list = queriesV6[:]
	}
	for i, m := range list {
		if icmpType == m.query || icmpType == m.reply {
			return query{i, icmpType == m.reply}, true
		}
	}
	return q, false
}

// HasIdentifier reports whether an ICMP message is a query or a reply, whose identifier is part
// of the key of its flow.
func HasIdentifier(protocol, icmpType uint8) bool {
	_, ok := queryOf(protocol, icmpType)
	return ok
}

// ports returns what takes the place of the ports in the key of an ICMP query: the identifier
// and, since both sides may use the same one, the query, its code, and the side that sent it.
func (q query) ports(from verdict.Side, code uint8, id uint16) (src, dst uint16) {
	origin := from
	if q.reply {
		origin = from.Other()
	}
	src, dst = id, uint16(code)<<8|uint16(q.number)<<1|uint16(origin)
	if from == verdict.Outside { // set swaps them back
		src, dst = dst, src
	}
	return src, dst
}

// unpackQuery returns the type and the code of the query in a key.
func unpackQuery(protocol uint8, packed uint16) (icmpType, code uint8) {
	number := packed >> 1 & 0x7f
	if protocol == packet.ProtocolICMPv6 {
		return queriesV6[number].query, uint8(packed >> 8)
	}
	return queries[number].query, uint8(packed >> 8)
}

func isICMP(kind packet.Kind, protocol uint8) bool {
	return kind == packet.IPv4 && protocol == packet.ProtocolICMP || kind == packet.IPv6 && protocol == packet.ProtocolICMPv6
}

// errorsV4 are the ICMP messages that quote the packet that they are about: destination
// unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
var errorsV4 = []uint8{3, 4, 5, 11, 12}

// isError reports whether an ICMP message is an error. In IPv6, all types below 128 are (RFC
// 4443 §2.1).
func isError(v *packet.View) bool {
	switch {
	case v.Transport != packet.ICMP:
		return false
	case v.Protocol == packet.ProtocolICMPv6:
		return v.ICMPType < 128
	}
	return slices.Contains(errorsV4, v.ICMPType)
}

// setQuoted makes the key of the flow that an ICMP error is about. This is the flow of the
// quoted packet, which went in the opposite direction and whose source the error is sent to. It
// returns false if v is not such an error.
func (k *Key) setQuoted(v *packet.View) bool {
	if !isError(v) || len(v.Body) < icmpHeader || !v.ChecksumValid() {
		return false
	}
	q, ok := readQuote(v.Body[icmpHeader:], v.Kind)
	if !ok || q.src != v.Dst {
		return false
	}
	from := v.From.Other()
	var src, dst uint16
	switch {
	case packet.HasPorts(q.protocol):
		if len(q.upper) < 4 {
			return false
		}
		src, dst = binary.BigEndian.Uint16(q.upper), binary.BigEndian.Uint16(q.upper[2:])
	case isICMP(v.Kind, q.protocol):
		if len(q.upper) < icmpHeader {
			return false
		}
		message, known := queryOf(q.protocol, q.upper[0])
		if !known {
			return false
		}
		src, dst = message.ports(from, q.upper[1], binary.BigEndian.Uint16(q.upper[4:]))
	}
	k.set(from, q.src, q.dst, src, dst, q.protocol, packVLANs(v))
	return true
}

// quote is the beginning of a packet that an ICMP error quotes.
type quote struct {
	src, dst netip.Addr
	protocol uint8
	upper    []byte // as much of it as is quoted
}

// readQuote decodes the beginning of a packet, which may be truncated. It returns false for a
// fragment other than the first, and if the quote ends before the upper-layer header.
func readQuote(b []byte, kind packet.Kind) (q quote, ok bool) {
	if kind == packet.IPv4 {
		if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&0xf)*4 < 20 || int(b[0]&0xf)*4 > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return q, false
		}
		q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		q.protocol, q.upper = b[9], b[int(b[0]&0xf)*4:]
		return q, true
	}
	if len(b) < 40 || b[0]>>4 != 6 {
		return q, false
	}
	q.src, q.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	q.protocol, q.upper, ok = packet.UpperLayer(b[40:], b[6])
	return q, ok
}
