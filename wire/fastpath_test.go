package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/checksum"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// twin is a wire behind a fast path, and one without, that receive the same frames.
type twin struct {
	tester
	path   *memoryPath
	behind *Stepper // the fast path
	alone  *Stepper
	out    [2][]string // frames that left each wire
	at     time.Time
	fast   int           // frames that the fast path has handled
	copied *bytes.Buffer // saved flows of behind, before it is replaced; nil if they were not saved
}

// tester is a test, or a case of a property.
type tester interface {
	Helper()
	Cleanup(func())
	Errorf(format string, arguments ...any)
	Fatalf(format string, arguments ...any)
}

func newTwin(t tester, policy *filter.Policy, mode packet.Mode) *twin {
	w := &twin{tester: t, path: newMemoryPath(mode), at: began}
	w.behind, w.alone = w.stepper(0, policy, w.path), w.stepper(1, policy, nil)
	return w
}

// stepper returns one of the wires.
func (w *twin) stepper(i int, policy *filter.Policy, path FastPath) *Stepper {
	c := Config{Policy: policy, Mode: w.path.mode, Fragments: limits(), FastPath: path}
	c.Sides = sides(w.lane(i, verdict.Outside), w.lane(i, verdict.Inside))
	s := NewStepper(c)
	w.Cleanup(s.Close)
	return s
}

// lane returns a lane that records the frames that one of the wires sends to a side.
func (w *twin) lane(i int, to verdict.Side) tun.Lane {
	return tuntest.Sink(func(frames []tun.Frame) (refused int, err error) {
		for _, f := range frames {
			w.out[i] = append(w.out[i], fmt.Sprint(to, string(f.Data)))
		}
		return 0, nil
	})
}

// send has a frame arrive on a side of both wires, and compares the frames that leave.
func (w *twin) send(from verdict.Side, frame []byte) {
	w.Helper()
	w.path.now = w.at
	w.out[0], w.out[1] = w.out[0][:0], w.out[1][:0]
	forwarded, done := w.path.pass(from, frame, w.behind.MTU(from.Other()))
	if done {
		w.fast++
		w.behind.advance(w.at)
		if forwarded {
			w.out[0] = append(w.out[0], fmt.Sprint(from.Other(), string(frame)))
		}
	} else {
		w.behind.Forward(from, tun.Frame{Data: bytes.Clone(frame)}, w.at)
	}
	w.alone.Forward(from, tun.Frame{Data: bytes.Clone(frame)}, w.at)
	if !slices.Equal(w.out[0], w.out[1]) {
		var p packet.Parsed
		why := p.Decode(frame)
		w.Fatalf("at %v from %v, by the fast path: %v: %d frames leave, want %d\n%v %+v\n% x", w.at.Sub(began), from, done,
			len(w.out[0]), len(w.out[1]), why, p, frame)
	}
}

// compare compares the counters and the flows of both wires.
func (w *twin) compare() {
	w.Helper()
	for side := range verdict.Side(verdict.Sides) {
		if got, want := w.behind.Counters(side), w.alone.Counters(side); got != want {
			w.Fatalf("from %v:\ngot  %+v\nwant %+v", side, got, want)
		}
	}
	got, want := w.behind.Policy(), w.alone.Policy()
	for i := range want.Policy().Rules {
		if got.Count(i) != want.Count(i) {
			w.Fatalf("rule %d: %+v, want %+v", i, got.Count(i), want.Count(i))
		}
	}
	if got, want := flowsOf(w.Fatalf, w.behind), flowsOf(w.Fatalf, w.alone); !slices.Equal(got, want) {
		w.Fatalf("at %v: flows\n%s\nwant\n%s", w.at.Sub(began), strings.Join(without(got, want), "\n"), strings.Join(without(want, got), "\n"))
	}
}

// without returns the elements of a that are not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func (w *twin) reload(p *filter.Policy) {
	p.Secret = &stepperSecret
	w.behind.Reload(p)
	w.alone.Reload(p)
}

// flowsOf describes each flow of a wire.
func flowsOf(fatalf func(string, ...any), s *Stepper) (flows []string) {
	clock := func() time.Duration { return s.now.Sub(s.started) }
	err := s.policy.Load().WalkFlows(clock, func(int) error { return nil }, func(f *flow.Flow, now time.Duration) error {
		var p packet.Parsed
		first := f.First(&p)
		s.policy.Load().RuleOf(f)
		flows = append(flows, fmt.Sprint(first.From, first.Src, first.SrcPort, first.Dst, first.DstPort, first.Protocol, " ",
			f.State, " ", f.Idle(now), f.Expires(now), f.Sent(verdict.Inside), f.Sent(verdict.Outside), f.Assured(), f.Replied(), f.Denied, f.Rule))
		return nil
	})
	if err != nil {
		fatalf("%v", err)
	}
	slices.Sort(flows)
	return flows
}

// TestFastPathChangesNothing sends random traffic, with reloads, evictions and pauses. The
// frames that leave, the counters and the flows are the same as without a fast path.
func TestFastPathChangesNothing(t *testing.T) {
	frames, rounds := 3000, 40
	if testing.Short() {
		rounds = 8
	}
	fast, handed, forgotten := 0, 0, 0
	for seed := range uint64(rounds) {
		g := &traffic{Rand: rand.New(rand.NewPCG(seed, 19)), mode: packet.Mode(seed % 3)}
		g.stateful = seed%4 != 0
		t.Run(fmt.Sprintf("%d, %v, stateful: %v", seed, g.mode, g.stateful), func(t *testing.T) {
			w := newTwin(t, g.policy(), g.mode)
			for range frames {
				g.step(w)
			}
			w.compare()
			fast, handed, forgotten = fast+w.fast, handed+w.path.handed, forgotten+w.path.forgotten
		})
	}
	if fast < frames*rounds/4 || handed == 0 || forgotten == 0 {
		t.Errorf("of %d frames, the fast path has handled %d; %d beginnings handed over, %d drops forgotten",
			frames*rounds, fast, handed, forgotten)
	}
	t.Logf("%d frames took the fast path", fast)
}

// traffic makes random policies, and the traffic of a few hosts.
type traffic struct {
	*rand.Rand
	mode        packet.Mode
	stateful    bool
	connections [6]connection
	id          uint32
	pending     [][]byte // fragments not yet sent
	pendingFrom verdict.Side
}

func (g *traffic) chance(percent int) bool { return g.IntN(100) < percent }

// policy draws a policy whose rules mostly accept.
func (g *traffic) policy() *filter.Policy {
	p := &filter.Policy{
		Stateful: g.stateful, Default: verdict.Action(g.IntN(3)), AnyVLANs: g.chance(25), LooseTCP: g.chance(30),
		Secret: &stepperSecret,
	}
	for i := range g.IntN(6) {
		r := filter.Rule{Name: fmt.Sprint("rule ", i), Action: verdict.Accept, Log: g.chance(10)}
		if g.chance(35) {
			r.Action = verdict.Action(g.IntN(3))
		}
		if g.chance(50) {
			from := verdict.Side(g.IntN(2))
			r.From = &from
		}
		if g.chance(40) {
			port := uint16(g.IntN(3))
			r.DstPorts = filter.NewSet(filter.Range[uint16]{Lo: port, Hi: port})
		}
		if g.chance(25) {
			fragmented := g.chance(50)
			r.Fragmented = &fragmented
		}
		if g.chance(10) {
			r.VLANs = &filter.VLANs{Untagged: true}
		}
		if g.chance(15) {
			r.Limit = filter.Rate{Count: 1 + g.IntN(5), Per: time.Second}
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// step performs one random step.
func (g *traffic) step(w *twin) {
	switch n := g.IntN(1000); {
	case n < 500:
		w.at = w.at.Add(time.Duration(g.IntN(20)) * time.Millisecond)
	case n < 590:
		w.at = w.at.Add(time.Duration(g.IntN(3000)) * time.Millisecond)
	case n < 596:
		w.at = w.at.Add(time.Duration(g.IntN(200)) * time.Second)
	case n < 597:
		w.at = w.at.Add(time.Duration(g.IntN(6*24)) * time.Hour)
	case n < 603:
		w.reload(g.policy())
	case n < 610:
		w.path.evict(w.behind.policy.Load(), func() bool { return g.chance(30) })
	case n < 630:
		w.compare()
	case n < 650:
		for _, s := range []*Stepper{w.behind, w.alone} {
			s.advance(w.at)
			s.policy.Load().Expire(func() time.Duration { return s.now.Sub(s.started) }, 1)
		}
	}
	from, frame := g.frame()
	w.send(from, frame)
}

// frame returns the next frame, and its ingress side.
func (g *traffic) frame() (verdict.Side, []byte) {
	if len(g.pending) > 0 && g.chance(70) {
		at := 0
		if g.chance(10) {
			at = g.IntN(len(g.pending))
		}
		frame := g.pending[at]
		if !g.chance(5) { // otherwise it is sent again
			g.pending = slices.Delete(slices.Clone(g.pending), at, at+1)
		}
		return g.pendingFrom, frame
	}
	from := verdict.Side(g.IntN(2))
	if g.chance(55) {
		return g.connections[g.IntN(len(g.connections))].frame(g)
	}
	inside, outside := client4.Addr(), server4.Addr()
	if g.chance(40) {
		inside, outside = client6.Addr(), server6.Addr()
	}
	src, dst := netip.AddrPortFrom(inside, uint16(g.IntN(3))), netip.AddrPortFrom(outside, uint16(g.IntN(3)))
	if from == verdict.Outside {
		src, dst = dst, src
	}
	d := packettest.UDP(src, dst, packettest.Body(g.IntN(100)))
	switch {
	case g.chance(20):
		d = g.echo(src.Addr(), dst.Addr())
	case g.chance(5):
		binary.BigEndian.PutUint16(d.Payload[4:], uint16(g.IntN(20)))
	case g.chance(5):
		d.Payload[len(d.Payload)-1] ^= 1
	case g.chance(3) && src.Addr().Is4():
		d.Options = []byte{1, 1, 1, 0}
	}
	if g.chance(15) {
		d.Tags = []packet.Tag{{TPID: 0x8100, TCI: uint16(g.IntN(3))}}
	}
	if g.chance(25) {
		g.fragment(&d, from)
		return g.frame()
	}
	return from, d.Frame()
}

// fragment makes the fragments of a datagram the next frames.
func (g *traffic) fragment(d *packettest.Datagram, from verdict.Side) {
	if g.id++; g.chance(10) {
		g.id -= uint32(g.IntN(3))
	}
	d.ID = g.id & 0xff
	d.Payload = append(d.Payload, packettest.Body(64+g.IntN(100))...)
	g.pending, g.pendingFrom = d.Fragments(8*(1+g.IntN(8))), from
	if g.chance(15) {
		odd := d.Fragment(8*g.IntN(20), packettest.Body(8*(1+g.IntN(6))), g.chance(80))
		g.pending = slices.Insert(g.pending, g.IntN(len(g.pending)), odd)
	}
}

func (g *traffic) echo(src, dst netip.Addr) packettest.Datagram {
	d := packettest.Datagram{Src: src, Dst: dst, Protocol: packet.ProtocolICMP}
	kind := byte(8)
	if g.chance(50) {
		kind = 0
	}
	if src.Is6() {
		d.Protocol, kind = packet.ProtocolICMPv6, 128+(8-kind)/8
	}
	d.Payload = append([]byte{kind, byte(g.IntN(8) / 7), 0, 0, 0, byte(g.IntN(2))}, make([]byte, 10)...)
	sum := checksum.Sum(d.Payload, 0)
	if src.Is6() {
		sum = checksum.Sum(d.Payload, checksum.PseudoHeader(src, dst, d.Protocol, len(d.Payload)))
	}
	binary.BigEndian.PutUint16(d.Payload[2:], ^sum)
	return d
}
