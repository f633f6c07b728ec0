package flow

import "fragwall/packet/verdict"

// fit is how the numbers of a segment fit the connection so far.
type fit uint8

const (
	outOfWindow fit = iota // no host sends it, or no host accepts it
	old                    // retransmitted or delayed: it passes without an effect
	current
)

// inWindow compares the numbers of a segment with what the hosts can have sent and
// acknowledged, and records them if the segment is current:
//
//  1. it does not begin beyond its receiver's window;
//  2. it does not end more than a window behind;
//  3. it acknowledges nothing that was not sent;
//  4. it acknowledges nothing that is more than a window behind.
//
// reply is set if the responder sent it.
func (c *tcp) inWindow(s *segment, from verdict.Side, reply bool, state State) fit {
	sender, receiver := &c.ends[from], &c.ends[from.Other()]
	seq, behind := s.seq, s.end
	ack, sack := s.ack, s.ack
	if receiver.flags&sackPermitted != 0 && len(s.options) > 0 {
		sack = s.highestAck()
	}
	known := [...]end{*sender, *receiver}
	isSyn := s.flags&flagSyn != 0
	switch {
	case isSyn && (sender.maxWin == 0 || after(behind, sender.end) && (state == SynSent || state == SynRecv)):
		sender.begin(s, receiver, reply)
		if s.kind == kindSyn && reply {
			return current // simultaneous open: its receiver sent nothing to acknowledge
		}
	case sender.maxWin == 0:
		sender.join(s, receiver, sack)
	}
	if s.flags&flagAck == 0 || s.kind == kindRst && ack == 0 {
		ack, sack = receiver.end, receiver.end
	}
	if s.kind == kindRst && seq == 0 && state == SynSent {
		seq, behind = sender.end, sender.end // it answers a SYN
	}
	if f := c.fits(s, sender, receiver, seq, behind, sack); f != current {
		if sender.flags&liberal != 0 {
			return current
		}
		if f == outOfWindow && reply && known[0].maxWin == 0 {
			// It must not be taken for the first segment of the other side.
			*sender, *receiver = known[0], known[1]
		}
		return f
	}
	c.note(s, from, ack, sack, seq, behind)
	return current
}

// begin records the numbers of a SYN or SYN/ACK. Windows are scaled only if both sides offer it
// (RFC 7323 §2.2).
func (e *end) begin(s *segment, receiver *end, reply bool) {
	e.end, e.maxEnd, e.maxWin = s.end, s.end, max(uint32(s.window), 1)
	if len(s.options) > 0 {
		e.scale, e.flags = s.offers()
	}
	if reply && e.flags&receiver.flags&scales == 0 {
		e.scale, receiver.scale = 0, 0
	}
}

// join records the numbers of the first segment that was seen of an end of a connection that is
// older than the flow.
func (e *end) join(s *segment, receiver *end, sack uint32) {
	e.end = s.end
	e.maxWin = max(uint32(s.window)<<e.scale, 1)
	e.maxEnd = s.end + e.maxWin
	switch {
	case receiver.maxWin == 0:
		receiver.end, receiver.maxEnd = sack, sack
	case sack == receiver.end+1: // it answers a keep-alive probe (RFC 9293 §3.8.4)
		receiver.end++
	}
}

// fits makes the four comparisons.
func (c *tcp) fits(s *segment, sender, receiver *end, seq, behind, sack uint32) fit {
	if receiver.flags&lengthUnknown != 0 && after(sack, receiver.end) && before(sack, receiver.end+maxBody+1) {
		receiver.end = sack
	}
	notSent := !before(sack, receiver.end+1)
	late := !after(sack, receiver.end-max(sender.maxWin, minAckWindow)-1)
	windowKnown := receiver.maxWin != 0
	inReceiveWindow := after(behind, sender.end-receiver.maxWin-1)
	if !before(seq, sender.maxEnd+1) {
		// Some hosts send a little more than they may. The next acknowledgement shows whether
		// the receiver accepted it.
		if windowKnown && inReceiveWindow && behind-sender.maxEnd+1 <= receiver.maxWin && !notSent && !late {
			sender.end = behind
			sender.flags |= unacked
			return old
		}
		return outOfWindow
	}
	switch {
	case notSent:
		return outOfWindow
	case windowKnown && !inReceiveWindow, late:
		return old
	}
	return current
}

// note records a current segment.
func (c *tcp) note(s *segment, from verdict.Side, ack, sack, seq, behind uint32) {
	sender, receiver := &c.ends[from], &c.ends[from.Other()]
	window := uint32(s.window)
	if s.flags&flagSyn == 0 {
		window <<= sender.scale
	}
	sender.maxWin = max(sender.maxWin, window+sack-ack)
	if after(behind, sender.end) {
		sender.end = behind
		sender.flags |= unacked
		sender.flags &^= lengthUnknown
	}
	if s.partial {
		sender.flags |= lengthUnknown
	}
	if s.flags&flagAck != 0 && (sender.flags&acked == 0 || after(ack, sender.maxAck)) {
		sender.maxAck = ack
		sender.flags |= acked
	}
	if receiver.maxWin != 0 && after(behind, sender.maxEnd) {
		receiver.maxWin += behind - sender.maxEnd
	}
	if after(sack+window, receiver.maxEnd-1) {
		receiver.maxEnd = sack + max(window, 1)
	}
	if ack == receiver.end {
		receiver.flags &^= unacked
	}
	if s.kind != kindAck {
		return
	}
	l := &c.last
	if l.from == from && l.seq == seq && l.ack == ack && l.end == behind && l.window == s.window {
		l.retransmits = min(l.retransmits+1, maxRetransmits)
		return
	}
	l.from, l.seq, l.ack, l.end, l.window, l.retransmits = from, seq, ack, behind, s.window, 0
}
