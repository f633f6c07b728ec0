package conntrack

import (
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// forge adds a segment that neither host sent, mostly from outside. Its destination may reply.
func (t *talk) forge() {
	from := verdict.Outside
	if t.chance(30) {
		from = verdict.Inside
	}
	me, peer := t.hosts[from], t.hosts[from.Other()]
	g := segment{flags: t.flags(), seq: t.near(me.next, peer.expect, peer.window, peer.scale), window: t.window(me)}
	if g.flags&flagAck != 0 || t.chance(10) {
		g.ack = t.near(me.expect, peer.next, me.window, me.scale)
	}
	if t.chance(25) {
		g.data = []int{1, 1, 10, 1000, 1400}[t.IntN(5)]
	}
	switch {
	case t.chance(30):
		g.options = t.options(me)
	case g.flags&flagSyn != 0 && t.chance(50):
		g.options = []byte{optionSegmentSize, 4, 5, 180, optionNone, optionScale, 3, uint8(t.IntN(16))}
	}
	if len(me.sent) > 0 && t.chance(15) { // a segment that the host sent, with one change
		old := me.sent[t.IntN(len(me.sent))]
		switch t.IntN(4) {
		case 0:
			old.flags = g.flags
		case 1:
			old.seq = g.seq
		case 2:
			old.ack = g.ack
		case 3:
			old.window, old.options = g.window, g.options
		}
		g = old
	}
	switch n := t.IntN(100); {
	case n < 1:
		g.corrupt = true
	case n < 4:
		g.short = []int{-20, -8, -4, 4, 8, 40}[t.IntN(6)]
		if claimed := 20 + (len(g.options)+3)/4*4 + g.short; claimed > 60 || claimed < 0 {
			g.short = 0
		}
	case n < 5:
		g.urgent = 1
	}
	if t.chance(4) { // between other ports or addresses
		t.stray(from, g)
		return
	}
	t.pass(from, false, g)
	if t.chance(50) && !g.corrupt && g.short == 0 {
		t.receive(from.Other(), g)
	}
}

// stray sends a segment with another port or address.
func (t *talk) stray(from verdict.Side, g segment) {
	src := netip.AddrPortFrom(t.addr(from, 1), t.hosts[from].port)
	dst := netip.AddrPortFrom(t.addr(from.Other(), 1), t.hosts[from.Other()].port)
	switch t.IntN(3) {
	case 0:
		src = netip.AddrPortFrom(src.Addr(), src.Port()+1)
	case 1:
		dst = netip.AddrPortFrom(dst.Addr(), dst.Port()+1)
	case 2:
		src = netip.AddrPortFrom(t.addr(from, 2), src.Port())
	}
	t.sendAs(from, src.Addr(), dst.Addr(), false, packet.ProtocolTCP, g.bytes(src, dst), "from %v to %v: %v", src.Port(), dst.Port(), &g)
}

// flags returns the flags of a common attack, or random ones.
func (t *talk) flags() uint8 {
	common := []uint8{
		flagSyn, flagSyn, flagSyn | flagAck, flagSyn | flagAck, flagAck, flagAck, flagAck | flagPsh,
		flagRst, flagRst, flagRst | flagAck, flagRst | flagAck, flagFin | flagAck, flagFin | flagAck,
		flagFin, 0, flagSyn | flagFin, flagSyn | flagRst, flagFin | flagRst, flagSyn | flagEce | flagCwr,
		flagAck | flagUrg, flagFin | flagPsh | flagUrg, flagSyn | flagAck | flagEce,
	}
	if t.chance(20) {
		return uint8(t.IntN(256))
	}
	return common[t.IntN(len(common))]
}

// near returns a sequence number close to next or expect, close to an edge of the window, or a
// random one.
func (t *talk) near(next, expect uint32, window uint16, scale uint8) uint32 {
	base := next
	if t.chance(50) {
		base = expect
	}
	edge := uint32(window) << scale
	switch n := t.IntN(100); {
	case n < 30:
		return base
	case n < 45:
		return base + uint32(t.IntN(5)) - 2
	case n < 60:
		return base + edge + uint32(t.IntN(5)) - 2
	case n < 68:
		return base - edge + uint32(t.IntN(5)) - 2
	case n < 76 && edge > 0:
		return base + t.Uint32N(edge)
	case n < 82:
		return base - 66000 + uint32(t.IntN(3000)) - 1500
	case n < 86:
		return base + 1<<31 + uint32(t.IntN(3)) - 1
	case n < 90:
		return base + t.Uint32N(1<<20) - 1<<19
	case n < 92:
		return 0
	}
	return t.Uint32()
}

// window returns a window of 0, of 65535, a random one, or the one that the host offers.
func (t *talk) window(h *tcpHost) uint16 {
	switch t.IntN(6) {
	case 0:
		return 0
	case 1:
		return uint16(t.Uint32())
	case 2:
		return 65535
	}
	return h.window
}

// options returns unusual or malformed TCP options.
func (t *talk) options(h *tcpHost) []byte {
	choices := [][]byte{
		timestamps(t.Uint32(), t.Uint32()),
		sackOption([2]uint32{h.expect, h.expect + 10}),
		sackOption([2]uint32{t.Uint32(), t.Uint32()}),
		sackOption([2]uint32{h.expect + 1000, h.expect + 100000}),
		{optionScale, 3, uint8(t.IntN(256))},
		{optionScale, 2},
		{optionScale, 0, 0, 0},
		{optionScale, 30, 7},
		{optionSackPermitted, 2},
		{optionSack, 9, 0, 0},
		{optionSack, 2, 0, 0},
		append([]byte{optionMD5, 18}, make([]byte, 16)...),
		{optionNone, optionNone, optionNone, optionScale},
		{200, 4, 1, 1},
		{200, 1, 1, 1},
		{optionEnd, optionScale, 3, 7},
	}
	return choices[t.IntN(len(choices))]
}
