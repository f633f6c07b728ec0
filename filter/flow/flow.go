package flow

import (
	"encoding/binary"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Flow is an exchange between two hosts, one on each side, that the policy
// accepted. It may be used as long as the [Access] that gave it is open.
type Flow struct {
	key   Key
	begun time.Duration // of the clock: the first datagram
	seen  time.Duration // the last datagram that kept it alive
	sent  [verdict.Sides]Traffic
	slot  uint32 // of the fast path that forwards for it; 0 where none does

	links

	// Rule and Generation are the policy's: the number of the rule that accepted
	// the flow, and of the policy that the rule is of.
	Rule       uint32
	Generation uint32
	Origin     verdict.Side // of the first datagram
	Fragmented bool         // the first datagram came in fragments
	// Denied is set where a later policy does not accept the flow: it stays
	// known, so that the other side can't begin it anew.
	Denied bool

	State   State
	timeout timeout
	replied bool // the other side answered
	assured bool // TCP and SCTP: the handshake is complete; UDP: both sides go on sending
	class   class
	tcp     tcp
	sctp    sctp
}

// Traffic is what passed of a flow, in one direction.
type Traffic struct {
	Packets uint64 // datagrams, whole ones as they were judged
	Bytes   uint64 // of IP packets, headers included
}

// count counts a datagram that passes.
func (f *Flow) count(v *packet.View) {
	t := &f.sent[v.From]
	t.Packets++
	t.Bytes += uint64(v.Length())
}

// Sent returns what passed of the flow that came in by a side.
func (f *Flow) Sent(from verdict.Side) Traffic { return f.sent[from] }

// Age returns how long ago the flow was begun, Idle for how long no datagram kept it
// alive, and Expires in how long it ends if none will.
func (f *Flow) Age(now time.Duration) time.Duration     { return max(0, now-f.begun) }
func (f *Flow) Idle(now time.Duration) time.Duration    { return max(0, now-f.seen) }
func (f *Flow) Expires(now time.Duration) time.Duration { return f.expires() - now }

// Replied reports whether the side that did not begin the flow has sent, too.
func (f *Flow) Replied() bool { return f.replied }

// Assured reports whether the flow is what connection tracking calls assured: TCP and
// SCTP after the handshake, UDP and GRE once both sides go on sending.
func (f *Flow) Assured() bool { return f.assured }

// QueryID returns the identifier of an ICMP query; false for any other flow.
func (f *Flow) QueryID() (id uint16, ok bool) {
	return uint16(f.key.Ports >> 32), f.State == Query
}

// result is what a datagram is to the flow that it has the key of.
type result uint8

const (
	isInvalid   result = iota // no host sends it: it does not belong to the flow
	isKnown                   // it belongs to the flow, but does not keep it alive
	isRefreshed               // it belongs to the flow, and keeps it alive
	isOver                    // it belongs to the flow, and is the last one
	isNew                     // it begins another flow in place of this one
)

// First returns what the first datagram looked like, as far as rules look at
// it. What was decoded of it is put into p.
func (f *Flow) First(p *packet.Parsed) packet.View { return f.key.First(p, f.Origin, f.Fragmented) }

// expires returns when nothing more is taken for the flow's.
func (f *Flow) expires() time.Duration { return f.seen + durations[f.timeout] }

func (f *Flow) expired(now time.Duration) bool { return now > f.expires() }

// begin makes a flow of a datagram that the policy accepts. It reports false
// where the datagram begins none: it answers something that nobody asked for,
// belongs to a connection whose beginning was not seen, goes to a group, which
// does not reply as such, or is malformed.
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

// take judges a datagram by the flow whose key it has, and brings the flow on.
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

// streamAfter is how long both sides of a UDP flow send until it counts as a
// stream (nf_conntrack_proto_udp.c).
const streamAfter = 2 * time.Second

// takeUDP sets the timeout that a datagram leaves.
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

// repliesCount reports whether flows of a protocol live longer once they were
// answered.
func repliesCount(protocol uint8) bool {
	return protocol == packet.ProtocolUDP || protocol == packet.ProtocolUDPLite || protocol == packet.ProtocolGRE
}

// udpHeader is how long the header of UDP is, in bytes (RFC 768).
const udpHeader = 8

// wellFormed reports whether a host would take a datagram by its checksum and,
// of UDP, by its length (udp_error in nf_conntrack_proto_udp.c).
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
