package filter_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
)

// wire is a stateful table with a clock, and hosts on both sides.
type wire struct {
	testing.TB
	table *filter.Table
	now   time.Duration
}

// fromInside is a policy that lets only the inside begin.
func fromInside() *filter.Policy {
	return &filter.Policy{Stateful: true, Default: filter.Reject, Rules: []filter.Rule{
		{Name: "out", Action: filter.Accept, From: side(packet.Inside)}}}
}

func newWire(t testing.TB, p *filter.Policy) *wire {
	return &wire{TB: t, table: compile(t, p), now: -time.Hour}
}

func (w *wire) clock() time.Duration { return w.now }

func (w *wire) judge(from packet.Side, frame []byte) filter.Verdict {
	w.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != packet.Passed {
		w.Fatalf("not decoded: %v", why)
	}
	return w.table.Judge(&filter.Datagram{Parsed: &p, From: from, Upper: frame[p.Upper:p.End], UpperLength: p.End - p.Upper}, w.clock)
}

// pass and block send a frame and compare what becomes of it.
func (w *wire) pass(from packet.Side, frame []byte) {
	w.Helper()
	if v := w.judge(from, frame); v.Action != filter.Accept {
		w.Errorf("at %v from %v: %v", w.now, from, v)
	}
}

func (w *wire) block(from packet.Side, frame []byte) {
	w.Helper()
	if v := w.judge(from, frame); v.Action == filter.Accept {
		w.Errorf("at %v from %v: %v", w.now, from, v)
	}
}

// family is two hosts of one IP version.
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

func TestUDPFlow(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		w.block(packet.Outside, udp(f.out, f.in)) // nothing was asked
		w.pass(packet.Inside, udp(f.in, f.out))
		w.block(packet.Inside.Other(), udp(netip.AddrPortFrom(f.out.Addr(), 54), f.in))
		w.block(packet.Outside, udp(f.out, netip.AddrPortFrom(f.in.Addr(), 40001)))
		w.now += 30 * time.Second
		w.pass(packet.Outside, udp(f.out, f.in))
		w.now += 120 * time.Second // both ways: twice as long and more
		w.pass(packet.Outside, udp(f.out, f.in))
		w.now += 120*time.Second + 1
		w.block(packet.Outside, udp(f.out, f.in))
		w.pass(packet.Inside, udp(f.in, f.out))
		w.now += 30*time.Second + 1
		w.block(packet.Outside, udp(f.out, f.in))
	})
}

// TestFlowsKeepToTheirVLAN has the reply come with other tags.
func TestFlowsKeepToTheirVLAN(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		tagged := func(src, dst netip.AddrPort, vids ...uint16) []byte {
			d := packettest.UDP(src, dst, nil)
			for _, vid := range vids {
				d.Tags = append(d.Tags, packet.Tag{TPID: 0x8100, TCI: vid})
			}
			return d.Frame()
		}
		w.pass(packet.Inside, tagged(f.in, f.out, 5, 6))
		w.block(packet.Outside, tagged(f.out, f.in))
		w.block(packet.Outside, tagged(f.out, f.in, 5))
		w.block(packet.Outside, tagged(f.out, f.in, 6, 5))
		w.pass(packet.Outside, tagged(f.out, f.in, 0xe005, 6)) // another priority
	})
}

// hosts are the two ends of a TCP connection, as segments tell of them.
type hosts struct {
	*wire
	family
}

// tcp returns a segment from a side.
func (h *hosts) tcp(from packet.Side, flags uint8, seq, ack uint32, data int, options ...byte) []byte {
	src, dst := h.in, h.out
	if from == packet.Outside {
		src, dst = dst, src
	}
	b := make([]byte, 20, 64)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = uint8(20+len(options))<<2, flags
	binary.BigEndian.PutUint16(b[14:], 1000)
	b = append(append(b, options...), make([]byte, data)...)
	return packettest.Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolTCP, Payload: b}.Frame()
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
	inISN, outISN      = 0xfffffff0, 1000 // the sequence numbers of the inside wrap
)

// open shakes hands.
func (h *hosts) open() {
	h.Helper()
	h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0, 2, 4, 5, 0xb4, 1, 3, 3, 7))
	h.pass(packet.Outside, h.tcp(packet.Outside, syn|ack, outISN, inISN+1, 0, 1, 3, 3, 2))
	h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+1, outISN+1, 0))
}

// alive checks how long the connection lives without a segment.
func (h *hosts) alive(timeout time.Duration) {
	h.Helper()
	probe := h.tcp(packet.Outside, ack, outISN+1, inISN+1, 0)
	h.now += timeout
	h.pass(packet.Outside, probe)
	h.now += timeout + 1
	h.block(packet.Outside, probe)
}

func TestTCPFlow(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name string
		run  func(h *hosts)
	}{
		{"nobody asked", func(h *hosts) {
			for _, flags := range []uint8{syn, syn | ack, ack, rst, fin | ack, 0} {
				h.block(packet.Outside, h.tcp(packet.Outside, flags, outISN, inISN+1, 0))
			}
		}},
		{"syn without an answer", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0))
			h.now += 120*time.Second + 1
			h.block(packet.Outside, h.tcp(packet.Outside, syn|ack, outISN, inISN+1, 0))
		}},
		{"half open", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, syn|ack, outISN, inISN+1, 0))
			h.now += 60*time.Second + 1
			h.block(packet.Outside, h.tcp(packet.Outside, syn|ack, outISN, inISN+1, 0))
		}},
		{"established", func(h *hosts) { h.open(); h.alive(5 * day) }},
		{"simultaneous open", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, syn, outISN, 0, 0))
			h.pass(packet.Inside, h.tcp(packet.Inside, syn|ack, inISN, outISN+1, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, syn|ack, outISN, inISN+1, 0))
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+1, outISN+1, 0))
			h.alive(5 * day)
		}},
		{"taken up in its midst", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, 77, 88, 10))
			h.now += 300 * time.Second
			h.pass(packet.Outside, h.tcp(packet.Outside, ack, 88, 87, 10))
			h.alive(5 * day)
		}},
		{"taken up, unanswered", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, 77, 88, 10))
			h.now += 300*time.Second + 1
			h.block(packet.Outside, h.tcp(packet.Outside, ack, 88, 87, 10))
		}},
		{"one side done", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.alive(120 * time.Second)
		}},
		{"one side done, as the other knows", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(packet.Outside, h.tcp(packet.Outside, ack, outISN+1, inISN+7, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, ack, outISN+1, inISN+7, 100)) // it goes on
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+7, outISN+101, 0))
			h.alive(60 * time.Second)
		}},
		{"both done, and one does not know", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(packet.Outside, h.tcp(packet.Outside, fin|ack, outISN+1, inISN+7, 0))
			h.alive(30 * time.Second)
		}},
		{"both done at once", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, fin|ack, outISN+1, inISN+1, 0))
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+2, outISN+2, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, ack, outISN+2, inISN+2, 0))
			h.alive(120 * time.Second)
		}},
		{"both done, and again", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, fin|ack, inISN+1, outISN+1, 5))
			h.pass(packet.Outside, h.tcp(packet.Outside, fin|ack, outISN+1, inISN+7, 0))
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+7, outISN+2, 0))
			h.block(packet.Outside, h.tcp(packet.Outside, syn, outISN+9, 0, 0)) // a new one from the wrong side
			h.open()
			h.alive(5 * day)
		}},
		{"reset", func(h *hosts) {
			h.open()
			h.pass(packet.Outside, h.tcp(packet.Outside, rst, outISN+1, 0, 0))
			h.alive(10 * time.Second)
		}},
		{"connection refused", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, rst|ack, 0, inISN+1, 0))
			h.alive(10 * time.Second)
		}},
		{"refused by one who guesses", func(h *hosts) {
			h.pass(packet.Inside, h.tcp(packet.Inside, syn, inISN, 0, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, rst|ack, 0, inISN+2, 0))
			h.now += 20 * time.Second
			h.open()
			h.alive(5 * day)
		}},
		{"reset by one who guesses", func(h *hosts) {
			h.open()
			h.pass(packet.Outside, h.tcp(packet.Outside, rst, outISN, 0, 0))
			h.pass(packet.Outside, h.tcp(packet.Outside, rst, outISN+200_000, 0, 0))
			h.alive(5 * day)
		}},
		{"fin by one who guesses", func(h *hosts) {
			h.open()
			h.pass(packet.Outside, h.tcp(packet.Outside, fin|ack, outISN+1<<30, inISN+1, 0))
			h.alive(5 * day)
		}},
		{"reset within a scaled window", func(h *hosts) {
			h.open()
			h.pass(packet.Inside, h.tcp(packet.Inside, ack, inISN+1, outISN+1, 0)) // 1000 << 7 bytes
			h.pass(packet.Outside, h.tcp(packet.Outside, rst, outISN+100_000, 0, 0))
			h.alive(10 * time.Second)
		}},
		{"syn on a live connection", func(h *hosts) {
			h.open()
			h.pass(packet.Outside, h.tcp(packet.Outside, syn, 5, 0, 0)) // the host challenges it
			h.alive(5 * day)
		}},
	}
	for _, f := range families {
		for _, tt := range tests {
			t.Run(f.name+" "+tt.name, func(t *testing.T) { tt.run(&hosts{newWire(t, fromInside()), f}) })
		}
	}
}

// echo returns an echo request or reply.
func echo(f family, from packet.Side, reply bool, id uint16) []byte {
	src, dst := f.in.Addr(), f.out.Addr()
	if from == packet.Outside {
		src, dst = dst, src
	}
	kind := map[bool]map[uint8]uint8{false: {1: 8, 58: 128}, true: {1: 0, 58: 129}}[reply][f.icmp]
	return packettest.Datagram{Src: src, Dst: dst, Protocol: f.icmp,
		Payload: append(binary.BigEndian.AppendUint16([]byte{kind, 0, 0, 0}, id), 0, 1)}.Frame()
}

func TestEchoFlow(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		echo := func(from packet.Side, reply bool, id uint16) []byte { return echo(f, from, reply, id) }
		w.block(packet.Outside, echo(packet.Outside, true, 7))
		w.pass(packet.Inside, echo(packet.Inside, false, 7))
		w.pass(packet.Outside, echo(packet.Outside, true, 7))
		w.block(packet.Outside, echo(packet.Outside, true, 8))
		w.block(packet.Outside, echo(packet.Outside, false, 7)) // a request of its own
		w.pass(packet.Outside, echo(packet.Outside, true, 7))
		w.now += 30*time.Second + 1
		w.block(packet.Outside, echo(packet.Outside, true, 7))
	})
}

// icmpError returns an error about a packet, as its network layer began.
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
		w.block(packet.Outside, problem)
		w.pass(packet.Inside, sent)
		w.pass(packet.Outside, problem)
		size := 20 + 8
		if f.icmp == 58 {
			size = 40 + 8
		}
		w.pass(packet.Outside, icmpError(f, router[f.name], f.in.Addr(), unreachable, quote[:size])) // as little as there must be
		w.block(packet.Outside, icmpError(f, router[f.name], f.in.Addr(), unreachable, quote[:size-5]))
		w.block(packet.Outside, icmpError(f, router[f.name], f.out.Addr(), unreachable, quote)) // to another one
		w.block(packet.Inside.Other(), icmpError(f, router[f.name], f.in.Addr(), unreachable, udp(f.in, netip.AddrPortFrom(f.out.Addr(), 9))[14:]))
		w.block(packet.Outside, icmpError(f, router[f.name], f.in.Addr(), 200, quote)) // no error

		w.pass(packet.Outside, udp(f.out, f.in))
		w.table = compile(w, &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "in", Action: filter.Accept, From: side(packet.Outside)}}})
		w.pass(packet.Outside, udp(f.out, f.in))
		w.pass(packet.Inside, icmpError(f, f.in.Addr(), f.out.Addr(), unreachable, udp(f.out, f.in)[14:])) // about what came in
	})
}

// TestEchoError quotes an echo request.
func TestEchoError(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		request := echo(f, packet.Inside, false, 7)
		w.pass(packet.Inside, request)
		w.pass(packet.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), map[uint8]uint8{1: 11, 58: 3}[f.icmp], request[14:]))
		w.block(packet.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), map[uint8]uint8{1: 11, 58: 3}[f.icmp], echo(f, packet.Inside, false, 8)[14:]))
	})
}

// TestFlowsAndRules has rules that look at more than a flow.
func TestFlowsAndRules(t *testing.T) {
	f := families[0]
	t.Run("limit", func(t *testing.T) {
		p := fromInside()
		p.Rules[0].Limit = filter.Rate{Count: 2, Per: time.Second}
		w := newWire(t, p)
		w.pass(packet.Inside, udp(f.in, f.out))
		w.pass(packet.Inside, udp(f.in, f.out))
		w.block(packet.Inside, udp(f.in, f.out))
		w.pass(packet.Outside, udp(f.out, f.in))
	})
	t.Run("fragmented", func(t *testing.T) {
		p := fromInside()
		p.Rules[0].Fragmented = yes(false)
		w := newWire(t, p)
		w.pass(packet.Inside, udp(f.in, f.out))
		d := decode(t, udp(f.in, f.out))
		d.Fragmented = true
		if v := w.table.Judge(&filter.Datagram{Parsed: d}, w.clock); v.Action == filter.Accept {
			t.Error("a flow lets pass what its rule does not")
		}
	})
	t.Run("counts", func(t *testing.T) {
		w := newWire(t, fromInside())
		for range 3 {
			w.pass(packet.Inside, udp(f.in, f.out))
			w.pass(packet.Outside, udp(f.out, f.in))
		}
		if n := w.table.Count(0); n.Datagrams != 6 || n.Bytes != 6*36 {
			t.Errorf("%+v", n)
		}
		if v := w.judge(packet.Outside, udp(f.out, f.in)); v.String() != `accept by a flow of rule "out"` {
			t.Error(v)
		}
	})
	t.Run("group", func(t *testing.T) {
		w := newWire(t, fromInside())
		w.pass(packet.Inside, udp(f.in, netip.MustParseAddrPort("224.0.0.251:5353")))
		if n := w.table.Flows(); n != 0 {
			t.Errorf("%d flows", n)
		}
	})
}

// TestReloadJudgesFlowsAgain swaps policies under flows that go on.
func TestReloadJudgesFlowsAgain(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWire(t, fromInside())
			other := netip.AddrPortFrom(f.out.Addr(), 80)
			reload := func(p *filter.Policy) { w.table = filter.Compile(p, w.table) }
			w.pass(packet.Inside, udp(f.in, f.out))
			w.pass(packet.Inside, udp(f.in, other))
			w.pass(packet.Inside, echo(f, packet.Inside, false, 7))

			only80 := fromInside()
			only80.Rules[0].Protocols, only80.Rules[0].DstPorts = one[uint8](17), one[uint16](80)
			reload(only80)
			w.block(packet.Outside, udp(f.out, f.in)) // its flow would not begin any more
			w.pass(packet.Outside, udp(other, f.in))
			w.block(packet.Outside, echo(f, packet.Outside, true, 7))

			reload(fromInside())
			w.block(packet.Outside, udp(f.out, f.in)) // what was given up does not come back
			w.pass(packet.Outside, udp(other, f.in))
			if n := w.table.Count(0); n.Datagrams != 5 {
				t.Errorf("%d counted through two reloads, want 5", n.Datagrams)
			}

			stateless := fromInside()
			stateless.Stateful = false
			reload(stateless)
			w.block(packet.Outside, udp(other, f.in))
		})
	}
}

// TestScanDoesNotEvict has one prefix begin more flows than there may be, and
// compares what others keep.
func TestScanDoesNotEvict(t *testing.T) {
	p := &filter.Policy{Stateful: true, Rules: []filter.Rule{
		{Name: "all", Action: filter.Accept, From: side(packet.Inside)},
		{Name: "scanned", Action: filter.Accept, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 0, Hi: 65535})}}}
	p.Rules[1].From = side(packet.Outside)
	w := newWire(t, p)
	const limit = 1 << 15
	filter.LimitFlows(w.table, limit)
	d := &filter.Datagram{Parsed: decode(t, udp(families[0].in, families[0].out))}
	judge := func(from packet.Side) bool {
		d.From = from
		return w.table.Judge(d, w.clock).Flow
	}
	host := func(i int) { // 20 flows each of 250 prefixes
		d.Src, d.Dst = netip.AddrFrom4([4]byte{10, byte(i / 20 / 256), byte(i / 20), 1}), netip.AddrFrom4([4]byte{192, 0, 2, 1})
		d.SrcPort, d.DstPort = uint16(i), 443
	}
	for i := range 5_000 {
		host(i)
		judge(packet.Inside)
	}
	for i := range 3 * limit {
		w.now += time.Microsecond
		d.Src, d.Dst = netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 16)}), packettest.InsideIPv4
		d.SrcPort, d.DstPort = 50000, uint16(i)
		judge(packet.Outside)
	}
	if n := w.table.Flows(); n > limit || n < limit*99/100 {
		t.Errorf("%d flows", n)
	}
	for i := range 5_000 {
		host(i)
		d.Src, d.Dst, d.SrcPort, d.DstPort = d.Dst, d.Src, d.DstPort, d.SrcPort
		if !judge(packet.Outside) {
			t.Fatalf("flow %d gave way to the scan", i)
		}
	}
}

// TestFlowMemory fills the table with flows of a source each, which is when
// it takes most.
func TestFlowMemory(t *testing.T) {
	if underRace {
		t.Skip("the race detector's memory is not the flows'")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := newWire(t, &filter.Policy{Stateful: true, Default: filter.Accept})
	d := &filter.Datagram{Parsed: decode(t, udp(families[0].in, families[0].out))}
	const flows = 1_000_000
	for i := range flows {
		d.Src = netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 1})
		w.table.Judge(d, w.clock)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := w.table.Flows(); n != flows {
		t.Errorf("%d flows", n)
	}
	bytes := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d bytes a flow", bytes/flows)
	if bytes > 256<<20 {
		t.Errorf("%d MiB", bytes>>20)
	}

	w.now += time.Hour
	for range 10 {
		w.table.Expire(w.clock, 10)
	}
	if n := w.table.Flows(); n != 0 {
		t.Errorf("%d flows, an hour later", n)
	}
}

// TestFlowsUnderConcurrency has both directions and a reload at work on the
// same flows; the race detector and the counts look on.
func TestFlowsUnderConcurrency(t *testing.T) {
	w := newWire(t, fromInside())
	const rounds, flows = 200, 50
	tables := []*filter.Table{w.table, filter.Compile(fromInside(), w.table)}
	var all sync.WaitGroup
	for from := range packet.Side(packet.Sides) {
		all.Go(func() {
			for i := range rounds * flows {
				in, out := netip.AddrPortFrom(packettest.InsideIPv4, uint16(1+i%flows)), families[0].out
				if from == packet.Outside {
					in, out = out, in
				}
				var p packet.Parsed
				frame := udp(in, out)
				p.Decode(frame)
				d := &filter.Datagram{Parsed: &p, From: from, Upper: frame[p.Upper:p.End], UpperLength: p.End - p.Upper}
				if v := tables[i%2].Judge(d, w.clock); from == packet.Inside && v.Action != filter.Accept {
					t.Errorf("%v", v)
				}
			}
		})
	}
	all.Wait()
	if n := w.table.Flows(); n != flows {
		t.Errorf("%d flows, want %d", n, flows)
	}
}

func TestKnownFlowAllocatesNothing(t *testing.T) {
	w := newWire(t, fromInside())
	d := &filter.Datagram{Parsed: decode(t, udp(families[1].in, families[1].out))}
	clock := w.clock
	w.table.Judge(d, clock)
	if n := testing.AllocsPerRun(1000, func() { w.now += time.Millisecond; w.table.Judge(d, clock) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkKnownFlow has datagrams of as many flows come in turn, out of all
// that are known: what it costs to find one, and what the caches add.
func BenchmarkKnownFlow(b *testing.B) {
	for _, n := range []struct{ live, known int }{{1, 1}, {1024, 1024}, {1024, 100_000}, {4096, 100_000}} {
		b.Run(fmt.Sprintf("%d-of-%d", n.live, n.known), func(b *testing.B) {
			w := newWire(b, fromInside())
			p := new(packet.Parsed)
			p.Decode(udp(families[0].in, families[0].out))
			d := &filter.Datagram{Parsed: p}
			next := func(i int) { d.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
			for i := range n.known {
				next(i)
				w.table.Judge(d, w.clock)
			}
			clock, i := w.clock, 0
			b.ReportAllocs()
			for b.Loop() {
				next(i * 7919 % n.live * (n.known / n.live))
				w.table.Judge(d, clock)
				i++
			}
		})
	}
}
