package filter_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestScanDoesNotEvict begins more flows from one prefix than the table holds, and checks
// which flows of others remain.
func TestScanDoesNotEvict(t *testing.T) {
	p := &filter.Policy{Stateful: true, Rules: []filter.Rule{
		{Name: "all", Action: verdict.Accept, From: side(verdict.Inside)},
		{Name: "scanned", Action: verdict.Accept, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 0, Hi: 65535})}}}
	p.Rules[1].From = side(verdict.Outside)
	w := newWire(t, p)
	const limit = 1 << 15
	filter.LimitFlows(w.table, limit)
	d := w.view(verdict.Inside, udp(families[0].in, families[0].out))
	judge := func(from verdict.Side) bool {
		d.From = from
		return w.table.Judge(d, w.clock).Has(filter.OfFlow)
	}
	host := func(i int) { // 20 flows from each of 250 prefixes
		d.Src, d.Dst = netip.AddrFrom4([4]byte{10, byte(i / 20 / 256), byte(i / 20), 1}), netip.AddrFrom4([4]byte{192, 0, 2, 1})
		d.SrcPort, d.DstPort = uint16(i), 443
	}
	for i := range 5_000 {
		host(i)
		judge(verdict.Inside)
	}
	for i := range 3 * limit {
		w.now += time.Microsecond
		d.Src, d.Dst = netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 16)}), packettest.InsideIPv4
		d.SrcPort, d.DstPort = 50000, uint16(i)
		judge(verdict.Outside)
	}
	if n := w.table.Flows(); n > limit || n < limit*99/100 {
		t.Errorf("%d flows", n)
	}
	for i := range 5_000 {
		host(i)
		d.Src, d.Dst, d.SrcPort, d.DstPort = d.Dst, d.Src, d.DstPort, d.SrcPort
		if !judge(verdict.Outside) {
			t.Fatalf("the scan evicted flow %d", i)
		}
	}
}

// TestFlowsUnderConcurrency uses the same flows from both directions and during a reload,
// for the race detector and the counters.
func TestFlowsUnderConcurrency(t *testing.T) {
	w := newWire(t, fromInside())
	const rounds, flows = 200, 50
	tables := []*filter.Table{w.table, filter.Compile(fromInside(), w.table)}
	var all sync.WaitGroup
	for from := range verdict.Side(verdict.Sides) {
		all.Go(func() {
			for i := range rounds * flows {
				in, out := netip.AddrPortFrom(packettest.InsideIPv4, uint16(1+i%flows)), families[0].out
				if from == verdict.Outside {
					in, out = out, in
				}
				var p packet.Parsed
				frame := udp(in, out)
				p.Decode(frame)
				d := &packet.View{Parsed: &p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}
				if v := tables[i%2].Judge(d, w.clock); from == verdict.Inside && v.Action != verdict.Accept {
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
	d := w.view(verdict.Inside, udp(families[1].in, families[1].out))
	clock := w.clock
	w.table.Judge(d, clock)
	if n := testing.AllocsPerRun(1000, func() { w.now += time.Millisecond; w.table.Judge(d, clock) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkKnownFlow looks up some flows in turn, out of all known flows. It shows the cost of
// a lookup and of cache misses.
func BenchmarkKnownFlow(b *testing.B) {
	for _, n := range []struct{ live, known int }{{1, 1}, {1024, 1024}, {1024, 100_000}, {4096, 100_000}} {
		b.Run(fmt.Sprintf("%d-of-%d", n.live, n.known), func(b *testing.B) {
			w := newWire(b, fromInside())
			d := w.view(verdict.Inside, udp(families[0].in, families[0].out))
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
