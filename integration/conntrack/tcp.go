package conntrack

import (
	"net/netip"
	"slices"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// talk simulates a TCP connection: two hosts, the network between each host and the filter, and an
// attacker.
type talk struct {
	*script
	hosts     [verdict.Sides]*tcpHost
	client    verdict.Side
	flight    [verdict.Sides][]segment // sent by a side, not yet at the filter
	interfere int                      // percentage of forged steps
	disturb   int                      // percentage of segments that are reordered; about as many are lost
}

// tcpHost is the state of one host of the connection.
type tcpHost struct {
	port    uint16
	next    uint32 // sequence number of the next segment
	expect  uint32 // sequence number expected from the peer
	acked   uint32 // highest acknowledgment from the peer
	edge    uint32 // right edge of the peer's window
	window  uint16 // window offered to the peer, unscaled
	scale   uint8  // shift count of this host's window
	options uint8  // TCP options of this host's SYN (withScale and so on)
	agreed  uint8  // options of both SYNs
	peer    uint8  // shift count of the peer's window

	opened bool // it sent a SYN
	heard  bool // it received a SYN
	known  bool // its SYN was acknowledged
	closed bool // it sent a FIN
	ended  bool // it received a FIN
	dead   bool // it sent or received a RST

	sent []segment   // to be retransmitted
	held [][2]uint32 // sequence ranges received out of order
}

// TCP options of a SYN.
const (
	withScale = 1 << iota
	withSack
	withTimestamps
)

func newTalk(s *script) *talk {
	t := &talk{script: s, client: verdict.Inside}
	if s.chance(8) {
		t.client = verdict.Outside
	}
	t.interfere = []int{0, 0, 5, 15, 40}[s.IntN(5)]
	t.disturb = []int{0, 0, 5, 15}[s.IntN(4)]
	for side := range t.hosts {
		t.hosts[side] = &tcpHost{}
		t.begin(verdict.Side(side))
		t.hosts[side].port = uint16(1024 + s.IntN(60000))
	}
	return t
}

// begin resets a host to its state before a connection, with a new initial sequence number.
func (t *talk) begin(side verdict.Side) {
	h := t.hosts[side]
	first := t.Uint32()
	switch {
	case t.chance(25): // wraps soon
		first = -uint32(t.IntN(3000))
	case h.next != 0 && t.chance(50): // above that of the connection before (RFC 6191)
		first = h.next + uint32(t.IntN(1<<20))
	}
	*h = tcpHost{port: h.port, next: first, acked: first}
	h.window = []uint16{65535, 64240, 29200, 1024, 512}[t.IntN(5)]
	h.options = uint8(t.IntN(8))
	if h.options&withScale != 0 {
		h.scale = []uint8{0, 2, 7, 7, 14}[t.IntN(5)]
	}
}

// tcpExchange adds a TCP connection that begins with its SYN.
func tcpExchange(s *script) {
	t := newTalk(s)
	t.run(6 + s.IntN(34))
}

// tcpMidstream adds a TCP connection whose beginning the filter did not see.
func tcpMidstream(s *script) {
	t := newTalk(s)
	a, b := t.hosts[verdict.Inside], t.hosts[verdict.Outside]
	for _, h := range t.hosts {
		h.opened, h.heard, h.known = true, true, true
		h.scale, h.options = 0, h.options&^withScale
		if t.chance(30) {
			h.scale, h.agreed, h.peer = 7, withScale, 7
		}
	}
	a.expect, b.expect = b.next, a.next
	a.acked, b.acked = a.next, b.next
	a.edge, b.edge = a.next+uint32(b.window), b.next+uint32(a.window)
	t.run(4 + s.IntN(20))
}

// tcpRandom adds forged segments, in 70 % of cases after a SYN.
func tcpRandom(s *script) {
	t := newTalk(s)
	t.interfere = 100
	if s.chance(70) {
		t.act(t.client)
		t.deliver(t.client)
	}
	for range 2 + s.IntN(12) {
		if s.chance(10) {
			s.wait()
		}
		t.forge()
	}
}

// run continues the connection until the filter has seen the given number of packets.
func (t *talk) run(steps int) {
	slow := t.chance(50)
	for idle := 0; len(t.Steps) < steps && idle < 200; idle++ {
		switch side := verdict.Side(t.IntN(2)); {
		case slow && t.chance(4):
			t.wait()
		case t.chance(t.interfere):
			t.forge()
		case len(t.Steps) > 0 && t.chance(2):
			t.report(t.IntN(len(t.Steps)))
		case len(t.flight[side]) > 0 && t.chance(75):
			t.deliver(side)
		default:
			t.act(side)
		}
	}
}

// deliver removes a segment from the network. The filter sees it unless it is lost before the
// filter. The other host receives it unless it is lost before or after the filter.
func (t *talk) deliver(side verdict.Side) {
	flight := t.flight[side]
	if len(flight) == 0 {
		return
	}
	at := 0
	if t.chance(t.disturb) {
		at = t.IntN(len(flight))
	}
	g := flight[at]
	t.flight[side] = slices.Delete(flight, at, at+1)
	if t.chance(t.disturb / 2) {
		return
	}
	t.pass(side, true, g)
	if !t.chance(t.disturb / 2) {
		t.receive(side.Other(), g)
	}
}

// pass sends a segment to the filter.
func (t *talk) pass(from verdict.Side, honest bool, g segment) {
	src := netip.AddrPortFrom(t.addr(from, 1), t.hosts[from].port)
	dst := netip.AddrPortFrom(t.addr(from.Other(), 1), t.hosts[from.Other()].port)
	t.send(from, honest, packet.ProtocolTCP, g.bytes(src, dst), "%v", &g)
}

// transmit sends a segment of a host, with its acknowledgement and window.
func (t *talk) transmit(side verdict.Side, g segment) {
	h := t.hosts[side]
	if h.heard {
		g.ack = h.expect
		g.flags |= flagAck
	}
	g.window = h.window
	if g.flags&flagSyn == 0 {
		if h.agreed&withTimestamps != 0 {
			g.options = append(g.options, timestamps(uint32(len(t.Steps)), 7)...)
		}
		if h.agreed&withSack != 0 && len(h.held) > 0 {
			g.options = append(g.options, sackOption(h.held[:min(len(h.held), 2)]...)...)
		}
	}
	if end := g.seq + g.length(); int32(end-h.next) > 0 {
		h.next = end
		h.sent = append(h.sent, g)
	}
	t.flight[side] = append(t.flight[side], g)
}

// act makes a host send a segment that its state permits.
func (t *talk) act(side verdict.Side) {
	h := t.hosts[side]
	switch {
	case h.dead || h.closed && h.ended:
		t.afterwards(side)
	case !h.opened:
		if side == t.client || h.heard || t.chance(2) {
			t.open(side)
		}
	case !h.known || !h.heard:
		if t.chance(30) {
			t.again(side)
		}
	default:
		t.speak(side)
	}
}

// open sends the SYN.
func (t *talk) open(side verdict.Side) {
	h := t.hosts[side]
	h.opened = true
	options := h.options
	if h.heard {
		options &= t.hosts[side.Other()].options
		h.agreed = options
	}
	if options&withScale == 0 {
		h.scale = 0
	}
	g := segment{flags: flagSyn, seq: h.next, options: []byte{optionSegmentSize, 4, 5, 180}}
	if options&withSack != 0 {
		g.options = append(g.options, optionNone, optionNone, optionSackPermitted, 2)
	}
	if options&withTimestamps != 0 {
		g.options = append(g.options, timestamps(1, 0)...)
	}
	if options&withScale != 0 {
		g.options = append(g.options, optionNone, optionScale, 3, h.scale)
	}
	if t.chance(5) {
		g.flags |= flagEce | flagCwr // RFC 3168 §6.1.1
	}
	t.transmit(side, g)
}

// speak makes a host of an established connection send a segment.
func (t *talk) speak(side verdict.Side) {
	h := t.hosts[side]
	room := int32(h.edge - h.next)
	switch n := t.IntN(100); {
	case n < 45 && !h.closed && room > 0:
		t.transmit(side, segment{seq: h.next, flags: flagPsh, data: 1 + t.IntN(min(int(room), 1400))})
	case n < 60:
		t.transmit(side, segment{seq: h.next})
	case n < 70:
		t.again(side)
	case n < 74:
		h.window = []uint16{0, 0, 100, 8000, 65535}[t.IntN(5)]
		t.transmit(side, segment{seq: h.next})
	case n < 76: // keep-alive (RFC 9293 §3.8.4)
		t.transmit(side, segment{seq: h.next - 1})
	case n < 78: // an abort
		h.dead = true
		t.transmit(side, segment{seq: h.next, flags: flagRst})
	case n < 95 && !h.closed:
		h.closed = true
		t.transmit(side, segment{seq: h.next, flags: flagFin})
	}
}

// again retransmits a segment, mostly the oldest unacknowledged one.
func (t *talk) again(side verdict.Side) {
	h := t.hosts[side]
	if len(h.sent) == 0 {
		return
	}
	g := h.sent[t.IntN(len(h.sent))]
	for _, s := range h.sent {
		if int32(s.seq+s.length()-h.acked) > 0 && t.chance(80) {
			g = s
			break
		}
	}
	if g.flags&flagSyn == 0 {
		g.options = nil
	}
	t.transmit(side, g)
}

// afterwards makes a host act after its connection has ended: it retransmits, begins a new
// connection, acknowledges, or does nothing.
func (t *talk) afterwards(side verdict.Side) {
	h := t.hosts[side]
	switch n := t.IntN(100); {
	case n < 50:
		if !h.dead {
			t.again(side)
		}
	case n < 60 && side == t.client:
		t.begin(side)
		t.open(side)
	case n < 65:
		t.transmit(side, segment{seq: h.next})
	}
}

// receive processes a segment that a host received.
func (t *talk) receive(side verdict.Side, g segment) {
	h := t.hosts[side]
	switch {
	case g.flags&flagRst != 0:
		if g.seq == h.expect || !h.heard && g.ack == h.next {
			h.dead = true
		}
		return
	case g.flags&flagSyn != 0 && (h.dead || h.closed && h.ended) && g.flags&flagAck == 0:
		t.begin(side)
		fallthrough
	case g.flags&flagSyn != 0 && !h.heard:
		t.greet(side, g)
		return
	case h.dead || !h.heard:
		if t.chance(50) { // RFC 9293 §3.10.7.1
			t.flight[side] = append(t.flight[side], segment{seq: g.ack, flags: flagRst})
		}
		return
	}
	if g.flags&flagAck != 0 {
		h.known = true
		t.acknowledged(h, g)
	}
	if g.flags&flagSyn != 0 {
		t.transmit(side, segment{seq: h.next}) // challenge ACK (RFC 5961 §4)
		return
	}
	t.collect(side, g)
}

// greet processes a SYN.
func (t *talk) greet(side verdict.Side, g segment) {
	h, peer := t.hosts[side], t.hosts[side.Other()]
	h.heard, h.expect = true, g.seq+1
	h.edge = h.next + uint32(g.window)
	if h.opened {
		h.agreed = h.options & peer.options
		if h.agreed&withScale == 0 {
			h.scale = 0
		}
		h.known = g.flags&flagAck != 0
		t.acknowledged(h, g)
		h.peer = peer.scale
		if h.known {
			t.transmit(side, segment{seq: h.next})
		} else { // simultaneous open (RFC 9293 §3.5)
			t.again(side)
		}
		return
	}
	h.peer = peer.scale
	t.open(side)
}

// acknowledged processes the acknowledgment and the window of a segment.
func (t *talk) acknowledged(h *tcpHost, g segment) {
	if g.flags&flagAck == 0 || int32(g.ack-h.next) > 0 {
		return
	}
	if int32(g.ack-h.acked) > 0 {
		h.acked = g.ack
	}
	window := uint32(g.window)
	if g.flags&flagSyn == 0 && h.agreed&withScale != 0 {
		window <<= h.peer
	}
	h.edge = g.ack + window
}

// collect processes data that arrived in order or out of order. It acknowledges most of it.
func (t *talk) collect(side verdict.Side, g segment) {
	h := t.hosts[side]
	end := g.seq + g.length()
	switch {
	case g.length() == 0:
		return
	case g.seq == h.expect:
		h.expect = end
		for i := 0; i < len(h.held); i++ {
			if h.held[i][0] == h.expect {
				h.expect = h.held[i][1]
				h.held = slices.Delete(h.held, i, i+1)
				i = -1
			}
		}
		if g.flags&flagFin != 0 {
			h.ended = true
		}
	case int32(g.seq-h.expect) > 0 && g.flags&flagFin == 0:
		if !slices.Contains(h.held, [2]uint32{g.seq, end}) {
			h.held = append(h.held, [2]uint32{g.seq, end})
		}
	}
	if t.chance(85) {
		t.transmit(side, segment{seq: h.next})
	}
}
