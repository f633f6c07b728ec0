package filter_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// wire is a stateful table with a clock, and hosts on both sides.
type wire struct {
	testing.TB
	table *filter.Table
	now   time.Duration
}

// fromInside is a policy that accepts flows from the inside only.
func fromInside() *filter.Policy {
	return &filter.Policy{Stateful: true, Default: verdict.Reject, Rules: []filter.Rule{
		{Name: "out", Action: verdict.Accept, From: side(verdict.Inside)}}}
}

func newWire(t testing.TB, p *filter.Policy) *wire {
	return &wire{TB: t, table: compile(t, p), now: -time.Hour}
}

func (w *wire) clock() time.Duration { return w.now }

func (w *wire) judge(from verdict.Side, frame []byte) filter.Verdict {
	w.Helper()
	return w.table.Judge(w.view(from, frame), w.clock)
}

// view returns the view of a frame.
func (w *wire) view(from verdict.Side, frame []byte) *packet.View {
	w.Helper()
	p := decode(w, frame)
	return &packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}
}

// pass and block send a frame and check its verdict.
func (w *wire) pass(from verdict.Side, frame []byte) {
	w.Helper()
	if v := w.judge(from, frame); v.Action != verdict.Accept {
		w.Errorf("at %v from %v: %v", w.now, from, v)
	}
}

func (w *wire) block(from verdict.Side, frame []byte) {
	w.Helper()
	if v := w.judge(from, frame); v.Action == verdict.Accept {
		w.Errorf("at %v from %v: %v", w.now, from, v)
	}
}

// family has two hosts of one IP version.
type family struct {
	name    string
	in, out netip.AddrPort
	icmp    uint8
}

var families = []family{
	{"ipv4", netip.AddrPortFrom(packettest.InsideIPv4, 40000), netip.AddrPortFrom(packettest.OutsideIPv4, 53), packet.ProtocolICMP},
	{"ipv6", netip.AddrPortFrom(packettest.InsideIPv6, 40000), netip.AddrPortFrom(packettest.OutsideIPv6, 53), packet.ProtocolICMPv6},
}

func bothFamilies(t *testing.T, run func(w *wire, f family)) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) { run(newWire(t, fromInside()), f) })
	}
}

func udp(src, dst netip.AddrPort) []byte { return packettest.UDP(src, dst, packettest.Body(8)).Frame() }

// datagramOf returns a frame between the hosts of a family.
func datagramOf(f family, from verdict.Side, protocol uint8, payload []byte) []byte {
	src, dst := f.in.Addr(), f.out.Addr()
	if from == verdict.Outside {
		src, dst = dst, src
	}
	return packettest.Datagram{Src: src, Dst: dst, Protocol: protocol, Payload: payload}.Frame()
}

func TestUDPFlow(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		w.block(verdict.Outside, udp(f.out, f.in)) // no request
		w.pass(verdict.Inside, udp(f.in, f.out))
		w.block(verdict.Inside.Other(), udp(netip.AddrPortFrom(f.out.Addr(), 54), f.in))
		w.block(verdict.Outside, udp(f.out, netip.AddrPortFrom(f.in.Addr(), 40001)))
		w.now += 30 * time.Second
		w.pass(verdict.Outside, udp(f.out, f.in))
		w.now += 30 * time.Second // the first reply does not make the flow a stream
		w.pass(verdict.Outside, udp(f.out, f.in))
		w.now += 120 * time.Second // traffic both ways for more than two seconds does
		w.pass(verdict.Outside, udp(f.out, f.in))
		w.now += 120*time.Second + 1
		w.block(verdict.Outside, udp(f.out, f.in))
		w.pass(verdict.Inside, udp(f.in, f.out))
		w.now += 30*time.Second + 1
		w.block(verdict.Outside, udp(f.out, f.in))
	})
}

// TestFlowsKeepToTheirVLAN sends the reply with other tags.
func TestFlowsKeepToTheirVLAN(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		tagged := func(src, dst netip.AddrPort, vids ...uint16) []byte {
			d := packettest.UDP(src, dst, nil)
			for _, vid := range vids {
				d.Tags = append(d.Tags, packet.Tag{TPID: 0x8100, TCI: vid})
			}
			return d.Frame()
		}
		w.pass(verdict.Inside, tagged(f.in, f.out, 5, 6))
		w.block(verdict.Outside, tagged(f.out, f.in))
		w.block(verdict.Outside, tagged(f.out, f.in, 5))
		w.block(verdict.Outside, tagged(f.out, f.in, 6, 5))
		w.pass(verdict.Outside, tagged(f.out, f.in, 0xe005, 6)) // another priority
	})
}

// echo returns an echo request or reply.
func echo(f family, from verdict.Side, reply bool, id uint16) []byte {
	src, dst := f.in.Addr(), f.out.Addr()
	if from == verdict.Outside {
		src, dst = dst, src
	}
	kind := map[bool]map[uint8]uint8{false: {1: 8, 58: 128}, true: {1: 0, 58: 129}}[reply][f.icmp]
	return packettest.Datagram{Src: src, Dst: dst, Protocol: f.icmp,
		Payload: append(binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0}, id), 0, 1)}.Frame()
}

func TestEchoFlow(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		echo := func(from verdict.Side, reply bool, id uint16) []byte { return echo(f, from, reply, id) }
		w.block(verdict.Outside, echo(verdict.Outside, true, 7))
		w.pass(verdict.Inside, echo(verdict.Inside, false, 7))
		w.pass(verdict.Outside, echo(verdict.Outside, true, 7))
		w.block(verdict.Outside, echo(verdict.Outside, true, 8))
		w.block(verdict.Outside, echo(verdict.Outside, false, 7)) // a request of its own
		w.pass(verdict.Outside, echo(verdict.Outside, true, 7))
		w.now += 30*time.Second + 1
		w.block(verdict.Outside, echo(verdict.Outside, true, 7))
	})
}

// icmpError returns an error about a packet, with the beginning of that packet.
func icmpError(f family, from, to netip.Addr, kind uint8, quoted []byte) []byte {
	return packettest.Datagram{Src: from, Dst: to, Protocol: f.icmp, Payload: append([]byte{kind, 1, 0, 0, 0, 0, 5, 0x14}, quoted...)}.Frame()
}

func TestRelatedErrors(t *testing.T) {
	router := map[string]netip.Addr{"ipv4": netip.MustParseAddr("192.0.2.254"), "ipv6": netip.MustParseAddr("2001:db8:9::1")}
	bothFamilies(t, func(w *wire, f family) {
		sent := udp(f.in, f.out)
		quote := sent[14:]
		unreachable := map[uint8]uint8{1: 3, 58: 1}[f.icmp]
		problem := icmpError(f, router[f.name], f.in.Addr(), unreachable, quote)
		w.block(verdict.Outside, problem)
		w.pass(verdict.Inside, sent)
		w.pass(verdict.Outside, problem)
		size := 20 + 8
		if f.icmp == 58 {
			size = 40 + 8
		}
		w.pass(verdict.Outside, icmpError(f, router[f.name], f.in.Addr(), unreachable, quote[:size])) // the minimum
		w.block(verdict.Outside, icmpError(f, router[f.name], f.in.Addr(), unreachable, quote[:size-5]))
		w.block(verdict.Outside, icmpError(f, router[f.name], f.out.Addr(), unreachable, quote)) // to another host
		w.block(verdict.Inside.Other(), icmpError(f, router[f.name], f.in.Addr(), unreachable, udp(f.in, netip.AddrPortFrom(f.out.Addr(), 9))[14:]))
		w.block(verdict.Outside, icmpError(f, router[f.name], f.in.Addr(), 200, quote)) // not an error type

		w.pass(verdict.Outside, udp(f.out, f.in))
		w.table = compile(w, &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "in", Action: verdict.Accept, From: side(verdict.Outside)}}})
		w.pass(verdict.Outside, udp(f.out, f.in))
		w.pass(verdict.Inside, icmpError(f, f.in.Addr(), f.out.Addr(), unreachable, udp(f.out, f.in)[14:])) // about a packet from outside
	})
}

// TestErrorAboutFragments quotes the first fragment of a datagram, as a router with a
// smaller MTU does, and another fragment, which has no ports.
func TestErrorAboutFragments(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		w.pass(verdict.Inside, udp(f.in, f.out))
		body := packettest.Body(3000)
		binary.BigEndian.PutUint16(body[1440-8:], f.in.Port()) // where a first fragment has ports
		binary.BigEndian.PutUint16(body[1440-6:], f.out.Port())
		fragments := packettest.UDP(f.in, f.out, body).Fragments(1440)
		tooBig := map[uint8]uint8{1: 3, 58: 2}[f.icmp]
		w.pass(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), tooBig, fragments[0][14:]))
		w.block(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), tooBig, fragments[1][14:]))
	})
}

// TestEchoError quotes an echo request.
func TestEchoError(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		request := echo(f, verdict.Inside, false, 7)
		w.pass(verdict.Inside, request)
		w.pass(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), map[uint8]uint8{1: 11, 58: 3}[f.icmp], request[14:]))
		w.block(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), map[uint8]uint8{1: 11, 58: 3}[f.icmp], echo(f, verdict.Inside, false, 8)[14:]))
	})
}

// TestFlowsAndRules has rules that match more than the key of a flow.
func TestFlowsAndRules(t *testing.T) {
	f := families[0]
	t.Run("limit", func(t *testing.T) {
		p := fromInside()
		p.Rules[0].Limit = filter.Rate{Count: 2, Per: time.Second}
		w := newWire(t, p)
		w.pass(verdict.Inside, udp(f.in, f.out))
		w.pass(verdict.Inside, udp(f.in, f.out))
		w.block(verdict.Inside, udp(f.in, f.out))
		w.pass(verdict.Outside, udp(f.out, f.in))
	})
	t.Run("fragmented", func(t *testing.T) {
		p := fromInside()
		p.Rules[0].Fragmented = yes(false)
		w := newWire(t, p)
		w.pass(verdict.Inside, udp(f.in, f.out))
		d := w.view(verdict.Inside, udp(f.in, f.out))
		d.Fragmented = true
		if v := w.table.Judge(d, w.clock); v.Action == verdict.Accept {
			t.Error("a flow accepts datagrams that its rule does not")
		}
	})
	t.Run("fragmented answers", func(t *testing.T) {
		p := fromInside()
		p.Rules = append([]filter.Rule{
			{Name: "other", Action: verdict.Accept, Fragmented: yes(true), From: side(verdict.Outside), Protocols: one[uint8](132)},
			{Name: "whole", Action: verdict.Drop, Dst: filter.NewAddrSet(filter.PrefixRange(netip.PrefixFrom(f.in.Addr(), 32))), Fragmented: yes(true)},
		}, p.Rules...)
		w := newWire(t, p)
		w.pass(verdict.Inside, udp(f.in, f.out))
		d := w.view(verdict.Outside, udp(f.out, f.in))
		d.Fragmented = true
		if v := w.table.Judge(d, w.clock); v.Rule == 0 || w.table.Rule(v.Rule).Name != "whole" {
			t.Errorf("fragments: %v", v)
		}
		w.pass(verdict.Outside, udp(f.out, f.in))
		e := w.view(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), 3, udp(f.in, f.out)[14:]))
		e.Fragmented = true
		if v := w.table.Judge(e, w.clock); v.Rule == 0 || w.table.Rule(v.Rule).Name != "whole" {
			t.Errorf("an error in fragments: %v", v)
		}
		w.pass(verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), 3, udp(f.in, f.out)[14:]))

		accepts := fromInside()
		accepts.Rules = append([]filter.Rule{{Name: "first", Action: verdict.Accept, Protocols: one[uint8](17)}}, p.Rules...)
		w.table = compile(t, accepts)
		w.pass(verdict.Inside, udp(f.in, f.out))
		if v := w.table.Judge(d, w.clock); !v.Has(filter.OfFlow) || w.table.Count(0).Datagrams != 2 {
			t.Errorf("fragments that an earlier rule accepts: %v, %+v", v, w.table.Count(0))
		}

		p.Rules[1].Action = verdict.Accept
		w.table = compile(t, p)
		w.pass(verdict.Inside, udp(f.in, f.out))
		if v := w.table.Judge(d, w.clock); !v.Has(filter.OfFlow) || w.table.Count(1).Datagrams != 0 {
			t.Errorf("fragments that a rule accepts: %v, %+v", v, w.table.Count(1))
		}
	})
	t.Run("counts", func(t *testing.T) {
		w := newWire(t, fromInside())
		for range 3 {
			w.pass(verdict.Inside, udp(f.in, f.out))
			w.pass(verdict.Outside, udp(f.out, f.in))
		}
		if n := w.table.Count(0); n.Datagrams != 6 || n.Bytes != 6*36 {
			t.Errorf("%+v", n)
		}
		if v := w.judge(verdict.Outside, udp(f.out, f.in)); !v.Has(filter.OfFlow) || w.table.Rule(v.Rule).Name != "out" {
			t.Errorf("%+v", v)
		}
	})
	t.Run("group", func(t *testing.T) {
		w := newWire(t, fromInside())
		w.pass(verdict.Inside, udp(f.in, netip.MustParseAddrPort("224.0.0.251:5353")))
		if n := w.table.Flows(); n != 0 {
			t.Errorf("%d flows", n)
		}
	})
}

// TestReloadJudgesFlowsAgain replaces the policy while flows continue.
func TestReloadJudgesFlowsAgain(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWire(t, fromInside())
			other := netip.AddrPortFrom(f.out.Addr(), 80)
			reload := func(p *filter.Policy) { w.table = filter.Compile(p, w.table) }
			w.pass(verdict.Inside, udp(f.in, f.out))
			w.pass(verdict.Inside, udp(f.in, other))
			w.pass(verdict.Inside, echo(f, verdict.Inside, false, 7))

			only80 := fromInside()
			only80.Rules[0].Protocols, only80.Rules[0].DstPorts = one[uint8](17), one[uint16](80)
			reload(only80)
			w.block(verdict.Outside, udp(f.out, f.in)) // the new policy would not accept the flow
			w.pass(verdict.Outside, udp(other, f.in))
			w.block(verdict.Outside, echo(f, verdict.Outside, true, 7))

			reload(fromInside())
			w.block(verdict.Outside, udp(f.out, f.in)) // a removed flow does not return
			w.pass(verdict.Outside, udp(other, f.in))
			if n := w.table.Count(0); n.Datagrams != 5 {
				t.Errorf("%d counted through two reloads, want 5", n.Datagrams)
			}

			stateless := fromInside()
			stateless.Stateful = false
			reload(stateless)
			w.block(verdict.Outside, udp(other, f.in))
		})
	}
}
