package flow

import (
	"time"

	"fragwall/packet/verdict"
)

// endFlags are boolean properties of an end of a connection.
type endFlags uint8

const (
	scales        endFlags = 1 << iota // offered window scaling
	sackPermitted                      // accepts selective acknowledgements
	closing                            // sent the first FIN
	unacked                            // its data has not been acknowledged yet
	acked                              // maxAck is set
	lengthUnknown                      // end may be too low by up to the length of a datagram
	liberal                            // numbers are not checked: the connection is older than the flow
)

// end is what one end of a connection sent. Its sequence numbers limit what the hosts can have
// sent and acknowledged: "Real Stateful TCP Packet Filtering in IP Filter", G. van Rooij, 2000,
// as in the kernel (tcp_in_window in nf_conntrack_proto_tcp.c).
type end struct {
	end    uint32 // the highest sequence number that it sent, plus one
	maxEnd uint32 // the highest sequence number that its peer has a window for
	maxWin uint32 // the largest window that it offered, in bytes; 0: nothing from it was seen
	maxAck uint32 // the highest that it acknowledged
	scale  uint8  // window scale
	flags  endFlags
}

// tcp is the state of a connection.
type tcp struct {
	ends [verdict.Sides]end
	last last
}

// last holds the fields of the last segment that passed. An ignored segment counts, too: the
// reply to it shows which host was right.
type last struct {
	seq, ack, end uint32
	window        uint16 // not scaled
	kind          kind
	from          verdict.Side
	scale         uint8    // offered by an ignored SYN of the originator
	flags         endFlags // likewise
	marks         marks
	retransmits   uint8 // how often the same ACK was repeated
}

// marks are kept for the segments that follow.
type marks uint8

const (
	challenge    marks = 1 << iota // the next ACK may answer an ignored SYN (RFC 5961 §4)
	simultaneous                   // both sides sent a SYN
)

func (m *marks) set(mark marks, on bool) {
	*m &^= mark
	if on {
		*m |= mark
	}
}

// maxRetransmits is the number of retransmissions after which the timeout of a connection is
// shortened (nf_conntrack_tcp_max_retrans).
const maxRetransmits = 3

// minAckWindow is the least distance that an acknowledgement may lag behind, in bytes.
const minAckWindow = 66000

// maxBody is the largest length of the part of a datagram that was not seen.
const maxBody = 65535

// beginTCP begins a connection with a segment of its originator: a SYN or, if the policy is
// loose, an ACK of a connection that is older than the flow (nf_conntrack_tcp_loose). It
// returns false if the segment cannot begin one.
func (f *Flow) beginTCP(s *segment, loose bool) bool {
	window := max(uint32(s.window), 1)
	origin := end{end: s.end, maxEnd: s.end, maxWin: window}
	switch {
	case s.kind == kindSyn:
		origin.scale, origin.flags = s.offers()
		f.State = SynSent
	case s.kind == kindAck && loose:
		origin.maxEnd += window
		origin.flags = sackPermitted | liberal
		f.tcp.ends[f.Origin.Other()].flags = sackPermitted | liberal
		f.State = Established
	default:
		return false
	}
	f.tcp.ends[f.Origin] = origin
	f.tcp.inWindow(s, f.Origin, false, f.State)
	f.tcp.last.kind, f.tcp.last.from = s.kind, f.Origin
	f.timeout = timeout(SynSent)
	if f.State == Established {
		f.timeout = unacknowledged
	}
	return true
}

// takeTCP judges a segment by the flow, and records it if it passes.
func (f *Flow) takeTCP(s *segment, from verdict.Side, now time.Duration) result {
	c := &f.tcp
	to := next[f.State].origin[s.kind]
	reply := from != f.Origin
	if reply {
		to = next[f.State].reply[s.kind]
	}
	skipWindow := false
	switch to {
	case invalid:
		return isInvalid
	case SynSent:
		if f.State >= TimeWait {
			if c.reopens(from) {
				return isNew
			}
			to = ignored
		}
	case TimeWait:
		if f.State == LastAck && s.kind == kindAck && c.answersChallenge(from) {
			c.last.marks.set(challenge, false)
			return isKnown
		}
	case SynSent2:
		c.last.marks.set(simultaneous, true)
	case SynRecv:
		if reply && s.kind == kindAck && c.last.marks&simultaneous != 0 {
			to = Established
		}
	case Close:
		if s.kind == kindRst {
			var r result
			if r, skipWindow = f.reset(s, from); r != isRefreshed {
				return r
			}
		}
	}
	if to == ignored {
		if !c.resyncs(s, from) {
			c.ignore(s, from, f)
			return isKnown
		}
		f.State, to = SynSent, SynRecv
	}
	if !skipWindow {
		switch c.inWindow(s, from, reply, f.State) {
		case outOfWindow:
			f.lowerTimeout(s, from, now)
			return isInvalid
		case old:
			return isKnown
		}
	}
	return f.step(s, from, to)
}

// step updates the flow with a segment that is in the window.
func (f *Flow) step(s *segment, from verdict.Side, to State) result {
	c := &f.tcp
	was := f.State
	c.last.kind, c.last.from = s.kind, from
	f.State = to
	if to == FinWait && was != FinWait {
		c.ends[from].flags |= closing
	}
	f.timeout = timeout(to)
	if to == Established {
		f.timeout = c.timeout()
	}
	switch {
	case !f.replied && s.kind == kindRst:
		return isOver // a closed port
	case !f.replied && s.kind == kindSyn && was == SynSent:
		return isKnown // reuse of a port must not keep the flow alive
	case !f.replied && to == Established:
		f.timeout = unacknowledged
	case f.replied && (was == SynRecv || was == Established) && to == Established:
		f.assured = true
	}
	return isRefreshed
}

// timeout returns the timeout of an open connection after its last segment.
func (c *tcp) timeout() timeout {
	switch {
	case c.last.retransmits >= maxRetransmits, c.last.window == 0:
		return retransmitted
	case (c.ends[0].flags|c.ends[1].flags)&unacked != 0:
		return unacknowledged
	}
	return timeout(Established)
}

// reopens reports whether a SYN of the originator begins a new connection after this one was
// closed by a FIN, or by a RST of the same host.
func (c *tcp) reopens(from verdict.Side) bool {
	return (c.ends[0].flags|c.ends[1].flags)&closing != 0 || c.last.from == from && c.last.kind == kindRst
}

// answersChallenge reports whether an ACK may be the reply to a SYN that was ignored in
// LAST_ACK. Such an ACK does not acknowledge the last FIN (RFC 5961 §4).
func (c *tcp) answersChallenge(from verdict.Side) bool {
	return c.last.from != from && c.last.kind == kindSyn && c.last.marks&challenge != 0
}

// resyncs reports whether a SYN/ACK answers the SYN that was ignored last: the hosts have
// agreed on a new connection, which replaces the old one.
func (c *tcp) resyncs(s *segment, from verdict.Side) bool {
	if s.kind != kindSynAck || c.last.kind != kindSyn || c.last.from == from || s.ack != c.last.end {
		return false
	}
	c.ends[c.last.from] = end{
		end: c.last.end, maxEnd: c.last.end, maxWin: max(uint32(c.last.window), 1),
		scale: c.last.scale, flags: c.last.flags,
	}
	c.ends[from] = end{}
	c.last.marks.set(challenge, false)
	return true
}

// ignore records a segment that passes without an effect on the state.
func (c *tcp) ignore(s *segment, from verdict.Side, f *Flow) {
	c.last.kind, c.last.from = s.kind, from
	c.last.seq, c.last.end, c.last.window = s.seq, s.end, s.window
	if s.kind == kindSyn && from == f.Origin {
		c.last.marks.set(simultaneous, false)
		c.last.scale, c.last.flags = s.offers()
		c.last.marks.set(challenge, f.State == LastAck)
	}
	if f.State == SynSent && s.kind == kindAck && from != f.Origin {
		c.last.ack = s.ack
	}
}

// reset judges a RST. It returns isRefreshed for one that may close the connection. skipWindow
// is set if its numbers need no further check.
//
// A host accepts a RST in reply to its SYN by the acknowledgement number. On an open
// connection, it accepts a RST with exactly the sequence number that it expects, and answers
// another one in the window with an ACK (RFC 9293 §3.10.7.3, RFC 5961 §3.2). So the latter
// passes, and the connection stays as it is. Once the hosts are about to close, the numbers
// that the box knows may belong to an earlier connection. Then any RST passes, but it closes a
// connection on which data may still arrive only if the number is exact.
func (f *Flow) reset(s *segment, from verdict.Side) (r result, skipWindow bool) {
	c := &f.tcp
	receiver := &c.ends[from.Other()]
	known := receiver.flags&acked != 0 && c.last.kind != kindSyn
	exact := s.seq == receiver.maxAck
	switch f.State {
	case SynSent, SynSent2:
		if from != f.Origin && (s.flags&flagAck == 0 || s.ack != receiver.end) {
			return f.challenge(s, from), false
		}
	case LastAck, TimeWait, Close:
		return isRefreshed, true
	case FinWait, CloseWait:
		if known && !exact && s.seq != c.ends[from].end {
			return isKnown, false
		}
		return isRefreshed, true
	}
	if known {
		open := f.assured && f.State == Established
		switch {
		case s.seq == 0 && !open:
			return isRefreshed, false
		case before(s.seq, receiver.maxAck):
			return isInvalid, false
		case open && !exact && !(c.last.kind == kindAck && c.last.from == from && s.seq == c.last.end):
			return f.challenge(s, from), false
		default:
			return isRefreshed, false
		}
	}
	answersIgnored := (f.replied && c.last.kind == kindSyn || !f.assured && c.last.kind == kindAck) &&
		c.last.from != from &&
		s.ack == c.last.end && (from == f.Origin || s.flags&flagAck != 0)
	answersChallenge := f.State == SynSent && c.last.kind == kindAck && c.last.from != f.Origin && s.seq == c.last.ack
	return isRefreshed, answersIgnored || answersChallenge
}

// challenge judges a RST for which its receiver would not close the connection.
func (f *Flow) challenge(s *segment, from verdict.Side) result {
	trial := f.tcp
	if trial.inWindow(s, from, from != f.Origin, f.State) == outOfWindow {
		return isInvalid
	}
	f.tcp.last.kind, f.tcp.last.from = kindRst, from
	return isKnown
}

// lowerTimeout shortens the timeout of a connection if its ends and the box disagree about how
// it ended: after a FIN or RST outside the window that follows one of the other side
// (nf_tcp_handle_invalid).
func (f *Flow) lowerTimeout(s *segment, from verdict.Side, now time.Duration) {
	c := &f.tcp
	if !f.assured || s.kind != kindFin && s.kind != kindRst {
		return
	}
	if c.last.from == from || c.last.kind != kindFin && c.last.kind != kindRst {
		c.last.kind, c.last.from = s.kind, from
		return
	}
	if f.expires()-now > durations[unacknowledged] {
		f.timeout, f.seen = unacknowledged, now
	}
}
