package flow

import (
	"encoding/binary"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Flow is an exchange between two hosts, one on each side, that the policy accepted. It may be
// used until the [Access] that returned it is closed.
type Flow struct {
	key   Key
	begun time.Duration // on the table's clock: the first datagram
	seen  time.Duration // the last datagram that kept the flow alive
	sent  [verdict.Sides]Traffic
	slot  uint32 // of the fast path that forwards the flow; 0 if none does

	links

	// Rule and Generation identify the rule that accepted the flow: its number, and the
	// generation of its policy.
	Rule       uint32
	Generation uint32
	Origin     verdict.Side // of the first datagram
	Fragmented bool         // the first datagram arrived in fragments
	// Denied is set if a later policy does not accept the flow. The flow stays known, so that
	// the other side cannot begin it anew.
	Denied bool

	State   State
	timeout timeout
	replied bool // the responder has answered
	assured bool // TCP and SCTP: the handshake is complete; UDP: both sides keep sending
	class   class
	tcp     tcp
	sctp    sctp
}

// Traffic counts what passed of a flow in one direction.
type Traffic struct {
	Packets uint64 // datagrams; a reassembled one counts once
	Bytes   uint64 // of IP packets, including headers
}

// count counts a datagram that passes.
func (f *Flow) count(v *packet.View) {
	t := &f.sent[v.From]
	t.Packets++
	t.Bytes += uint64(v.Length())
}

// Sent returns the traffic of the flow that arrived on one side.
func (f *Flow) Sent(from verdict.Side) Traffic { return f.sent[from] }

// Age returns the time since the flow began, Idle the time since a datagram last kept it alive,
// and Expires the time until it expires if no further datagram does.
func (f *Flow) Age(now time.Duration) time.Duration     { return max(0, now-f.begun) }
func (f *Flow) Idle(now time.Duration) time.Duration    { return max(0, now-f.seen) }
func (f *Flow) Expires(now time.Duration) time.Duration { return f.expires() - now }

// Replied reports whether the responder has sent, too.
func (f *Flow) Replied() bool { return f.replied }

// Assured reports whether the flow is assured in the sense of connection tracking: TCP and SCTP
// after the handshake, UDP and GRE once both sides keep sending.
func (f *Flow) Assured() bool { return f.assured }

// QueryID returns the identifier of an ICMP query; false for any other flow.
func (f *Flow) QueryID() (id uint16, ok bool) {
	return uint16(f.key.Ports >> 32), f.State == Query
}

// result is how a datagram relates to the flow with its key.
type result uint8

const (
	isInvalid   result = iota // no host sends it: it does not belong to the flow
	isKnown                   // it belongs to the flow, but does not keep it alive
	isRefreshed               // it belongs to the flow, and keeps it alive
	isOver                    // it belongs to the flow, and ends it
	isNew                     // it begins a new flow in place of this one
)

// First returns the first datagram as rules see it. It decodes into p.
func (f *Flow) First(p *packet.Parsed) packet.View { return f.key.First(p, f.Origin, f.Fragmented) }

// expires returns the time from which datagrams no longer belong to the flow.
func (f *Flow) expires() time.Duration { return f.seen + durations[f.timeout] }

func (f *Flow) expired(now time.Duration) bool { return now > f.expires() }

// begin makes a flow from a datagram that the policy accepts. It returns false if the datagram
// cannot begin one: it is a reply without a request; it belongs to a connection whose beginning
// was not seen; it is sent to a group, which does not reply as such; or it is malformed.
func (f *Flow) begin(v *packet.View, loose bool) bool {
	f.Origin, f.Fragmented = v.From, v.Fragmented
	if v.Dst.IsMulticast() || !wellFormed(v) {
		return false
	}
	switch {
	case v.Protocol == packet.ProtocolTCP:
		s, ok := readSegment(v)
		return ok && f.beginTCP(&s, loose)
	case v.Transport == packet.ICMP:
		q, _ := queryOf(v.Protocol, v.ICMPType)
		f.State = Query
		f.timeout = timeout(f.State)
		return !q.reply
	case v.Protocol == packet.ProtocolSCTP:
		return f.beginSCTP(v)
	case repliesCount(v.Protocol):
		f.State = Unreplied
	default:
		f.State = Generic
	}
	f.timeout = timeout(f.State)
	return true
}

// take judges a datagram by the flow with its key, and updates the flow.
func (f *Flow) take(v *packet.View, now time.Duration) result {
	if !wellFormed(v) {
		return isInvalid
	}
	r := isRefreshed
	reply := v.From != f.Origin
	switch {
	case v.Protocol == packet.ProtocolTCP:
		s, ok := readSegment(v)
		if !ok {
			return isInvalid
		}
		r = f.takeTCP(&s, v.From, now)
	case v.Protocol == packet.ProtocolSCTP:
		r = f.takeSCTP(v)
	case repliesCount(v.Protocol):
		f.takeUDP(v.Protocol, now)
	}
	if reply && r != isInvalid {
		f.replied = true
		if f.State == Unreplied {
			f.State = Replied
		}
	}
	return r
}

// streamAfter is how long both sides of a UDP flow must keep sending before it counts as a
// stream (nf_conntrack_proto_udp.c).
const streamAfter = 2 * time.Second

// takeUDP sets the timeout after a datagram.
func (f *Flow) takeUDP(protocol uint8, now time.Duration) {
	switch {
	case !f.replied:
		f.timeout = timeout(Unreplied)
	case protocol == packet.ProtocolGRE:
		f.timeout, f.assured = greStream, true
	case protocol == packet.ProtocolUDPLite, now-f.begun > streamAfter:
		f.timeout, f.assured = stream, true
	default:
		f.timeout = timeout(Replied)
	}
}

// repliesCount reports whether a reply prolongs the life of flows of a protocol.
func repliesCount(protocol uint8) bool {
	return protocol == packet.ProtocolUDP || protocol == packet.ProtocolUDPLite || protocol == packet.ProtocolGRE
}

// udpHeader is the length of the UDP header, in bytes (RFC 768).
const udpHeader = 8

// wellFormed reports whether a host would accept the checksum and, for UDP, the length of a
// datagram (udp_error in nf_conntrack_proto_udp.c).
func wellFormed(v *packet.View) bool {
	if v.Protocol == packet.ProtocolUDP {
		if len(v.Body) < udpHeader {
			return false
		}
		length := int(binary.BigEndian.Uint16(v.Body[4:]))
		if length < udpHeader || length > v.BodyLength && !v.Partial() {
			return false
		}
	}
	return v.ChecksumValid()
}
