package fastpath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/packettest/evasion"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// traffic makes frames of few flows, so that these are soon known, and all kinds of frames that
// look like theirs.
type traffic struct {
	*rand.Rand
	id      uint32
	pending [][]byte // fragments not yet sent
	from    []verdict.Side
}

var tags = [][]packet.Tag{nil, nil, nil, {{TPID: 0x8100, TCI: 7}}, {{TPID: 0x88a8, TCI: 3<<13 | 7}}, {{TPID: 0x8100, TCI: 5 << 13}}, {{TPID: 0x88a8, TCI: 9}, {TPID: 0x8100, TCI: 7}}}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (g *traffic) datagram() (packettest.Datagram, verdict.Side) {
	hosts, from := pick(g.Rand, families["ipv4"], families["ipv6"]), verdict.Side(g.IntN(2))
	src := netipPort(hosts.client, pick[uint16](g.Rand, 40000, 40001, 40002))
	dst := netipPort(hosts.server, pick[uint16](g.Rand, 53, 53, 53, 22, 80))
	if from == verdict.Outside {
		src, dst = dst, src
	}
	body := packettest.Body(pick(g.Rand, 0, 1, 7, 100, 1000, 1452, 1472, 1473, 1500))
	var d packettest.Datagram
	switch g.IntN(8) {
	case 0:
		d = packettest.TCP(src, dst, header.TCPFlags(pick[byte](g.Rand, 0x10, 0x18, 0x02, 0x12, 0x11, 0x04, 0x14, 0x30, byte(g.IntN(256)))))
	case 1:
		d = echo(src.Addr(), dst.Addr(), uint16(g.IntN(3)), from == verdict.Outside, byte(g.IntN(10)/9), body)
	case 2:
		d = packettest.Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: pick[uint8](g.Rand, 1, 58, 6, 17, 132, 47, 59), Payload: packettest.Body(g.IntN(40))}
	default:
		d = packettest.UDP(src, dst, body)
	}
	g.id++
	d.Tags, d.ID = pick(g.Rand, tags...), pick(g.Rand, g.Uint32N(4), g.id, g.id, g.id)
	if g.IntN(20) == 0 && src.Addr().Is4() {
		d.Options = []byte{1, 1, 1, 0}
	}
	if g.IntN(20) == 0 && src.Addr().Is6() {
		d.Before, d.FirstBefore = []byte{d.Protocol, 0, 1, 4, 0, 0, 0, 0}, pick[uint8](g.Rand, 0, 60)
	}
	return d, from
}

// echo returns an ICMP echo request or reply.
func echo(src, dst netip.Addr, id uint16, reply bool, code byte, body []byte) packettest.Datagram {
	payload := append([]byte{8, code, 0, 0, byte(id >> 8), byte(id), 0, 1}, body...)
	d := packettest.Datagram{Src: src, Dst: dst, Protocol: packet.ProtocolICMP, Payload: payload}
	if reply {
		payload[0] = 0
	}
	sum := uint16(0)
	if src.Is6() {
		d.Protocol, payload[0] = packet.ProtocolICMPv6, 128
		if reply {
			payload[0] = 129
		}
		sum = pseudoSum(src, dst, packet.ProtocolICMPv6, len(payload))
	}
	binary.BigEndian.PutUint16(payload[2:], ^addUp(payload, sum))
	return d
}

// next returns a frame.
func (g *traffic) next() (verdict.Side, []byte) {
	if n := len(g.pending); n > 0 && g.IntN(2) > 0 {
		i := 0
		if g.IntN(40) == 0 {
			i = g.IntN(n)
		}
		frame, from := g.pending[i], g.from[i]
		if g.IntN(30) > 0 { // otherwise it is sent again
			g.pending = append(g.pending[:i:i], g.pending[i+1:]...)
			g.from = append(g.from[:i:i], g.from[i+1:]...)
		}
		return from, g.mutate(frame)
	}
	d, from := g.datagram()
	if g.IntN(10) == 0 {
		d.Payload = append(d.Payload, packettest.Body(g.IntN(4000))...)
		if d.Protocol == packet.ProtocolUDP {
			binary.BigEndian.PutUint16(d.Payload[4:], uint16(len(d.Payload)))
		}
		for _, f := range d.Fragments(pick(g.Rand, 8, 1024, 1480, 1480)) {
			g.pending, g.from = append(g.pending, f), append(g.from, from)
		}
		if len(g.pending) > 1000 {
			g.pending, g.from = g.pending[500:], g.from[500:]
		}
	}
	return from, g.mutate(d.Frame())
}

// mutate sometimes changes a frame.
func (g *traffic) mutate(frame []byte) []byte {
	frame = append([]byte(nil), frame...)
	switch g.IntN(12) {
	case 0:
		frame[12+g.IntN(min(60, len(frame)-12))] ^= byte(1 << g.IntN(8))
	case 1:
		frame = append(frame, make([]byte, pick(g.Rand, 1, 18, 46, 100, 600))...)
	case 2:
		frame = frame[:max(14, g.IntN(len(frame)))]
	}
	if len(frame) < 60 && g.IntN(2) == 0 {
		frame = append(frame, make([]byte, 60-len(frame))...)
	}
	return frame
}

// TestTraffic checks that the same frames leave with the fast path as without, that all
// counters agree, and that many frames take the fast path.
func TestTraffic(t *testing.T) {
	frames := 20000
	if testing.Short() {
		frames = 2000
	}
	for _, mode := range []packet.Mode{packet.ModeDrop, packet.ModeReassemble, packet.ModeValidate} {
		for _, tracked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v stateful %v", mode, tracked), func(t *testing.T) {
				p := onlyPort53()
				p.Stateful = tracked
				r := newRig(t, p, mode)
				g := &traffic{Rand: rand.New(rand.NewPCG(uint64(mode), 1))}
				for i := range frames {
					from, frame := g.next()
					r.send(from, frame)
					if i%3 == 0 {
						r.settle()
					}
					if i%100 == 0 {
						r.Upkeep(time.Now())
					}
				}
				r.agree()
				if r.ways[forwarded] < frames/50 || r.ways[dropped] < frames/50 {
					t.Errorf("%v: %+v", r.ways, r.Stats())
				}
			})
		}
	}
}

// TestEvasion sends the evasion catalogue. The result is the same with and without the fast
// path, also if the flow is known.
func TestEvasion(t *testing.T) {
	c, err := rules.Parse("policy", []byte("[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n"+evasion.Policy))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		r := newRig(t, c.Policy, mode)
		for _, e := range evasion.Cases() {
			for family, frames := range e.Frames {
				if frames == nil || frames[len(frames)-1].At > time.Second {
					continue // the kernel's clock cannot be moved forward
				}
				t.Run(fmt.Sprintf("%v/%s/%v", mode, e.Name, evasion.Family(family)), func(t *testing.T) {
					r.TB = t
					r.evade(frames)
				})
			}
		}
		r.TB = t
		if r.agree(); r.ways[forwarded] < 100 && mode == packet.ModeValidate {
			t.Errorf("%d frames took the fast path", r.ways[forwarded])
		}
	}
}

// evade sends the frames of a case after the fast path has learned their flows.
func (r *rig) evade(frames []evasion.Frame) {
	for _, f := range frames { // the fast path learns the flow from fragmented and from whole datagrams
		var parsed packet.Parsed
		if parsed.Decode(f.Data) != verdict.Passed || parsed.Protocol != packet.ProtocolUDP || !parsed.HoldsTransport() {
			continue
		}
		d := packettest.UDP(netip.AddrPortFrom(parsed.Src, parsed.SrcPort), netip.AddrPortFrom(parsed.Dst, parsed.DstPort), packettest.Body(2000))
		d.Tags = parsed.Tags[:parsed.TagCount]
		for i := range 3 {
			d.ID = 0xf000 + uint32(i)
			for _, fragment := range d.Fragments(1024) {
				r.send(f.From, fragment)
			}
		}
	}
	r.settle()
	for _, f := range frames {
		r.send(f.From, f.Data)
		r.settle()
	}
}
