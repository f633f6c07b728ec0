package filter_test

import (
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// described returns a datagram without its payload, as a question describes it.
func (w *wire) described(from verdict.Side, frame []byte) *packet.View {
	v := w.view(from, frame)
	v.Body, v.BodyLength = nil, 0
	return v
}

// same compares verdicts, except for parts that only a received datagram has.
func same(a, b filter.Verdict) bool {
	a.Flags, b.Flags = a.Flags&^filter.Cacheable, b.Flags&^filter.Cacheable
	return a == b
}

// TestOutlook compares the outlook on datagrams with the later verdict: with and without
// a flow, in fragments, of a denied flow, and beyond a limit.
func TestOutlook(t *testing.T) {
	limited := fromInside()
	limited.Rules = append([]filter.Rule{{Name: "few", Action: verdict.Accept, From: side(verdict.Inside), Limit: filter.Rate{Count: 2, Per: time.Second}}}, limited.Rules...)
	whole := fromInside()
	whole.Rules = append([]filter.Rule{{Name: "no fragments", Action: verdict.Drop, Fragmented: new(bool)}}, whole.Rules...)
	*whole.Rules[0].Fragmented = true
	stateless := fromInside()
	stateless.Stateful = false
	for name, p := range map[string]*filter.Policy{"limited": limited, "whole": whole, "stateless": stateless, "denied": fromInside()} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, p)
			f := families[0]
			out, back := udp(f.in, f.out), udp(f.out, f.in)
			steps := []struct {
				from       verdict.Side
				frame      []byte
				fragmented bool
			}{{verdict.Outside, back, false}, {verdict.Inside, out, false}, {verdict.Outside, back, false}, {verdict.Outside, back, true}, {verdict.Inside, out, true}, {verdict.Inside, out, false}, {verdict.Inside, out, false}}
			for i, s := range steps {
				if name == "denied" && i == 2 {
					w.table = filter.Compile(&filter.Policy{Stateful: true}, w.table)
				}
				d := w.described(s.from, s.frame)
				d.Parsed.Fragmented = s.fragmented
				first, again := w.table.Outlook(d, w.clock), w.table.Outlook(d, w.clock)
				came := w.view(s.from, s.frame)
				came.Parsed.Fragmented = s.fragmented
				if got := w.table.Judge(came, w.clock); !same(first.Verdict, got) || !same(again.Verdict, got) {
					t.Errorf("step %d: the outlook was %v and %v, the verdict %v", i, first.Verdict, again.Verdict, got)
				}
				if known := first.Flow != nil; known != (name != "stateless" && i > 1) {
					t.Errorf("step %d: flow %v", i, first.Flow)
				}
			}
		})
	}
}

// TestOutlookLimits reads a limit while it is used up.
func TestOutlookLimits(t *testing.T) {
	p := &filter.Policy{Rules: []filter.Rule{
		{Name: "few", Action: verdict.Accept, Limit: filter.Rate{Count: 2, Per: time.Second}},
		{Name: "more", Action: verdict.Accept, Limit: filter.Rate{Count: 600, Per: time.Minute}},
	}}
	w := newWire(t, p)
	frame := packettest.UDP(families[0].in, families[0].out, nil).Frame()
	for _, want := range [][]filter.LimitLeft{{{Rule: 1, Left: 2}}, {{Rule: 1, Left: 1}}, {{Rule: 1}, {Rule: 2, Left: 10}}, {{Rule: 1}, {Rule: 2, Left: 9}}} {
		got := w.table.Outlook(w.described(verdict.Inside, frame), w.clock).Limits
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%v, want %v", got, want)
		}
		w.pass(verdict.Inside, frame)
	}
	w.now += time.Hour
	if got := w.table.Outlook(w.described(verdict.Inside, frame), w.clock).Limits; len(got) != 1 || got[0].Left != 2 {
		t.Errorf("%v", got)
	}
}
