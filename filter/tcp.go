package filter

import (
	"encoding/binary"

	"fragwall/packet"
)

// tcpEnd is what one side of a connection said. Sequence numbers serve to tell
// what ends a connection from what only looks so; a segment is never dropped
// for its numbers, as the box can't know all that the hosts know.
type tcpEnd struct {
	end    uint32 // sequence number behind what it sent
	acked  uint32 // what it acknowledged
	window uint32 // the largest that it offered, in bytes
	scale  uint8  // of its windows (RFC 7323 §2)
	flags  uint8
}

const (
	endSent  = 1 << iota // end is set
	endAcked             // acked and window are set
	endFin               // it sent a FIN
)

// TCP flags (RFC 9293 §3.1).
const (
	tcpFin = 1 << iota
	tcpSyn
	tcpRst
	tcpPsh
	tcpAck
)

const tcpHeader = 20

// segment is what a TCP header says.
type segment struct {
	seq, ack uint32
	window   uint16
	flags    uint8
	length   uint32 // of sequence space: data, SYN, FIN
	scale    uint8  // from a SYN's options
}

// readSegment reads a header; total is the length of the segment with its
// data.
func readSegment(b []byte, total int) (s segment, ok bool) {
	if len(b) < tcpHeader {
		return s, false
	}
	s.seq, s.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	s.flags, s.window = b[13], binary.BigEndian.Uint16(b[14:])
	size := int(b[12]>>4) * 4
	if size < tcpHeader || size > total {
		return s, false
	}
	s.length = uint32(total - size)
	if s.flags&tcpSyn != 0 {
		s.length++
		s.scale = windowScale(b[tcpHeader:min(size, len(b))])
	}
	if s.flags&tcpFin != 0 {
		s.length++
	}
	return s, true
}

// windowScale returns the shift in a SYN's options, 0 where there is none.
func windowScale(options []byte) uint8 {
	const end, noOperation, scale, maxShift = 0, 1, 3, 14
	for len(options) > 0 {
		switch {
		case options[0] == end:
			return 0
		case options[0] == noOperation:
			options = options[1:]
			continue
		case len(options) < 2 || options[1] < 2 || int(options[1]) > len(options):
			return 0
		case options[0] == scale && options[1] == 3:
			return min(options[2], maxShift)
		}
		options = options[options[1]:]
	}
	return 0
}

// beginTCP returns the state of the flow that a segment begins: a SYN's or, of
// a connection that is older than the box, that of any segment with an ACK
// alone.
func beginTCP(upper []byte) (flowState, bool) {
	if len(upper) < tcpHeader {
		return 0, false
	}
	switch upper[13] & (tcpFin | tcpSyn | tcpRst | tcpAck) {
	case tcpSyn:
		return tcpSynSent, true
	case tcpAck:
		return tcpUnanswered, true
	}
	return 0, false
}

// reopens reports whether a datagram begins a new connection where the flow's
// is over.
func (f *flow) reopens(d *packet.View) bool {
	return d.Protocol == packet.ProtocolTCP && len(d.Body) >= tcpHeader &&
		d.Body[13]&(tcpSyn|tcpAck|tcpRst) == tcpSyn && (f.state == tcpTimeWait || f.state == tcpClosed)
}

// advanceTCP takes in a segment of the connection.
func (f *flow) advanceTCP(d *packet.View) {
	s, ok := readSegment(d.Body, d.BodyLength)
	if !ok {
		return
	}
	me, peer := &f.ends[d.From], &f.ends[d.From.Other()]
	if s.flags&tcpRst != 0 {
		if peer.mayEnd(s) {
			f.state = tcpClosed
		}
		return
	}
	if s.flags&tcpSyn != 0 && f.state <= tcpSynReceived {
		me.scale = s.scale
	}
	if s.flags&tcpFin != 0 && peer.expects(s) {
		me.flags |= endFin
	}
	me.send(s, peer)
	f.state = f.after(s, d.From, me, peer)
}

// after returns the state that a segment other than a RST leaves.
func (f *flow) after(s segment, from packet.Side, me, peer *tcpEnd) flowState {
	switch f.state {
	case tcpSynSent:
		answers := s.flags&tcpAck == 0 || s.ack == peer.end
		if s.flags&tcpSyn != 0 && from != f.origin && answers {
			return tcpSynReceived
		}
	case tcpSynReceived:
		if s.flags&tcpSyn == 0 && s.flags&tcpAck != 0 && s.ack == peer.end || me.flags&peer.flags&endAcked != 0 && s.flags&tcpSyn == 0 {
			return ending(me, peer, tcpEstablished)
		}
	case tcpUnanswered:
		if from != f.origin && s.flags&tcpAck != 0 {
			return ending(me, peer, tcpEstablished)
		}
		return ending(me, peer, tcpUnanswered)
	case tcpEstablished, tcpFinWait, tcpCloseWait, tcpLastAck:
		return ending(me, peer, f.state)
	}
	return f.state
}

// ending returns the state by the FINs that were seen and acknowledged, or the
// one given.
func ending(me, peer *tcpEnd, state flowState) flowState {
	switch mine, theirs := me.flags&endFin != 0, peer.flags&endFin != 0; {
	case mine && theirs && me.hasAll(peer) && peer.hasAll(me):
		return tcpTimeWait
	case mine && theirs:
		return tcpLastAck
	case mine && peer.hasAll(me), theirs && me.hasAll(peer):
		return tcpCloseWait
	case mine || theirs:
		return tcpFinWait
	}
	return state
}

// hasAll reports whether an end acknowledged all that its peer sent.
func (e *tcpEnd) hasAll(peer *tcpEnd) bool { return e.flags&endAcked != 0 && e.acked == peer.end }

// send notes what a segment says, where it is plausible: that it acknowledges
// what was never sent teaches nothing.
func (e *tcpEnd) send(s segment, peer *tcpEnd) {
	if end := s.seq + s.length; e.flags&endSent == 0 || peer.expects(s) && int32(end-e.end) > 0 {
		e.end = end
		e.flags |= endSent
	}
	if s.flags&tcpAck == 0 || peer.flags&endSent != 0 && int32(s.ack-peer.end) > 0 {
		return
	}
	window := uint32(s.window)
	if s.flags&tcpSyn == 0 {
		window <<= e.scale
	}
	if e.flags&endAcked == 0 || int32(s.ack-e.acked) > 0 {
		e.acked = s.ack
	}
	e.window = max(e.window, window, 1)
	e.flags |= endAcked
}

// expects reports whether a segment to this end begins where its window is,
// before it, or in the window before that: what was sent twice counts too.
func (e *tcpEnd) expects(s segment) bool {
	return e.flags&endAcked == 0 || s.seq-e.acked+e.window <= 2*e.window
}

// mayEnd reports whether a RST to this end would be taken (RFC 9293
// §3.10.7.3): it is in the window or, before there is one, acknowledges the
// SYN.
func (e *tcpEnd) mayEnd(s segment) bool {
	if e.flags&endAcked == 0 {
		return s.flags&tcpAck == 0 || e.flags&endSent == 0 || s.ack == e.end
	}
	return s.seq-e.acked <= e.window
}
