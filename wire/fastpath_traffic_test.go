package wire

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/checksum"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TCP flags (RFC 9293 §3.1).
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
)

// connection is a TCP connection between two hosts, as each of them sees it: the next number
// that it sends, and the numbers that it has received.
type connection struct {
	ends   [verdict.Sides]struct{ next, got uint32 }
	origin verdict.Side
	opened int // segments of the handshake that were sent
	v6     bool
	port   uint16
	last   []byte
	from   verdict.Side // of last
}

// frame returns the next segment, and its ingress side. Mostly it is one that the hosts of the
// connection would send.
func (c *connection) frame(g *traffic) (verdict.Side, []byte) {
	if c.opened == 0 || g.chance(1) {
		*c = connection{origin: verdict.Side(g.IntN(2)), v6: g.chance(40), port: uint16(g.IntN(4))}
		if g.chance(90) {
			c.origin = verdict.Inside
		}
		for side := range c.ends {
			c.ends[side].next = g.Uint32()
		}
	}
	from := verdict.Side(g.IntN(2))
	flags, body := byte(ack), 0
	switch c.opened {
	case 0:
		from, flags = c.origin, syn
	case 1:
		from, flags = c.origin.Other(), syn|ack
	case 2:
		from = c.origin
	default:
		switch n := g.IntN(1000); {
		case n < 550:
			flags, body = ack|psh, g.IntN(1200)
		case n < 900:
		case n < 915 && c.last != nil:
			return c.from, c.last
		case n < 925:
			flags = ack | fin
		case n < 930:
			flags = rst
		case n < 940:
			flags = syn
		case n < 945:
			flags = ack | urg
		case n < 947:
			flags = byte(g.IntN(64))
		default:
			return from, c.odd(g, from)
		}
	}
	c.opened++
	got := c.ends[from.Other()].got
	frame := c.next(from, flags, body, g.window(), g.options(flags))
	if g.chance(5) && c.opened > 4 {
		c.ends[from.Other()].got = got // it was lost after the wire
	}
	if g.chance(1) {
		frame[len(frame)-1] ^= 1
	}
	c.last, c.from = frame, from
	return from, frame
}

// next returns the next segment of a side, which the other side receives.
func (c *connection) next(from verdict.Side, flags byte, body int, window uint16, options []byte) []byte {
	frame := c.segment(from, flags, c.ends[from].next, c.ends[from].got, body, window, options)
	c.ends[from].next += uint32(body)
	if flags&(syn|fin) != 0 {
		c.ends[from].next++
	}
	c.ends[from.Other()].got = c.ends[from].next
	return frame
}

// window draws a window that is mostly open.
func (g *traffic) window() uint16 {
	if g.chance(3) {
		return uint16(g.IntN(3))
	}
	return uint16(20000 + g.IntN(40000))
}

// options draws the options of a SYN.
func (g *traffic) options(flags byte) (options []byte) {
	if flags&syn != 0 && g.chance(80) {
		options = []byte{3, 3, byte(g.IntN(9)), 1} // window scale
		if g.chance(60) {
			options = append(options, 4, 2, 1, 1) // SACK permitted
		}
	}
	return options
}

// odd returns a segment that does not fit the connection.
func (c *connection) odd(g *traffic, from verdict.Side) []byte {
	seq, got := c.ends[from].next, c.ends[from].got
	switch g.IntN(6) {
	case 0:
		seq = g.Uint32()
	case 1:
		got = g.Uint32()
	case 2:
		seq--
	case 3:
		seq += uint32(g.IntN(1 << 20))
	case 4:
		seq -= uint32(g.IntN(1 << 18))
	default:
		got += uint32(g.IntN(5000))
	}
	flags := byte(ack)
	if g.chance(20) {
		flags = ack | rst
	}
	return c.segment(from, flags, seq, got, g.IntN(20), g.window(), nil)
}

// segment makes a segment with any values.
func (c *connection) segment(from verdict.Side, flags byte, seq, got uint32, body int, window uint16, options []byte) []byte {
	in, out := client4.Addr(), server4.Addr()
	if c.v6 {
		in, out = client6.Addr(), server6.Addr()
	}
	src, dst := netip.AddrPortFrom(in, 1000+c.port), netip.AddrPortFrom(out, c.port%3)
	if from == verdict.Outside {
		src, dst = dst, src
	}
	t := make([]byte, 20, 20+len(options)+body)
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint32(t[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(t[8:], got)
	}
	t[12], t[13] = byte(20+len(options))/4<<4, flags
	binary.BigEndian.PutUint16(t[14:], window)
	t = append(append(t, options...), packettest.Body(body)...)
	binary.BigEndian.PutUint16(t[16:], ^checksum.Sum(t, checksum.PseudoHeader(src.Addr(), dst.Addr(), packet.ProtocolTCP, len(t))))
	d := packettest.Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolTCP, Payload: t}
	return d.Frame()
}
