package filter_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// unhurried is a pause that does not wait.
func unhurried(int) error { return nil }

// many begins n flows from the inside, each from its own port.
func (w *wire) many(n int) {
	w.Helper()
	d := w.view(verdict.Inside, udp(families[0].in, families[0].out))
	for i := range n {
		d.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if v := w.table.Judge(d, w.clock); v.Action != verdict.Accept {
			w.Fatal(v)
		}
	}
}

// TestWalkFlows visits each flow once, while other flows begin and end. The test would block if
// the walk held a lock.
func TestWalkFlows(t *testing.T) {
	w := newWire(t, fromInside())
	const flows = 50_000
	w.many(flows)
	late := w.view(verdict.Inside, udp(families[1].in, families[1].out))
	seen := make(map[netip.Addr]int)
	looked := 0
	pause := func(n int) error {
		if looked += n; n > flow.MaxHold {
			t.Fatalf("%d flows visited under one lock", n)
		}
		return nil
	}
	err := w.table.WalkFlows(w.clock, pause, func(f *flow.Flow, _ time.Duration) error {
		var p packet.Parsed
		if first := f.First(&p); first.Kind == packet.IPv4 {
			seen[first.Src]++
		}
		if len(seen)%1000 == 0 {
			late.SrcPort++
			w.table.Judge(late, w.clock)
			w.table.Expire(w.clock, 1000)
		}
		return nil
	})
	if err != nil || len(seen) != flows || looked < flows {
		t.Errorf("%d of %d flows visited, %v", len(seen), looked, err)
	}
	for source, n := range seen {
		if n != 1 {
			t.Fatalf("%v: %d times", source, n)
		}
	}
	enough := errors.New("enough")
	if err := w.table.WalkFlows(w.clock, unhurried, func(*flow.Flow, time.Duration) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	if err := w.table.WalkFlows(w.clock, func(int) error { return enough }, nil); !errors.Is(err, enough) {
		t.Error(err)
	}
	w.now += time.Hour
	if err := w.table.WalkFlows(w.clock, unhurried, func(*flow.Flow, time.Duration) error { return enough }); err != nil {
		t.Error("an expired flow was visited")
	}
}

// only returns the only flow.
func (w *wire) only() (f flow.Flow) {
	w.Helper()
	n := 0
	_ = w.table.WalkFlows(w.clock, unhurried, func(visited *flow.Flow, _ time.Duration) error {
		f = *visited
		n++
		return nil
	})
	if n != 1 {
		w.Errorf("%d flows, want 1", n)
	}
	return f
}

// TestFlowFacts checks the properties of a flow over time.
func TestFlowFacts(t *testing.T) {
	w := newWire(t, fromInside())
	size := func(payload int) uint64 { return uint64(20 + 8 + payload) }
	question := packettest.UDP(families[0].in, families[0].out, packettest.Body(8)).Frame()
	answer := packettest.UDP(families[0].out, families[0].in, packettest.Body(100)).Frame()
	w.pass(verdict.Inside, question)
	w.now += time.Second
	w.pass(verdict.Inside, question)
	f := w.only()
	if f.State != flow.Unreplied || f.Replied() || f.Assured() || f.Sent(verdict.Inside) != (flow.Traffic{Packets: 2, Bytes: 2 * size(8)}) || f.Sent(verdict.Outside) != (flow.Traffic{}) {
		t.Errorf("%+v", f)
	}
	w.now += 3 * time.Second
	w.pass(verdict.Outside, answer)
	if f = w.only(); f.State != flow.Replied || !f.Replied() || f.Assured() {
		t.Errorf("%+v", f)
	}
	w.pass(verdict.Outside, answer)
	w.now += 500 * time.Millisecond
	f = w.only()
	if f.State != flow.Replied || !f.Replied() || !f.Assured() || f.Sent(verdict.Outside) != (flow.Traffic{Packets: 2, Bytes: 2 * size(100)}) {
		t.Errorf("%+v", f)
	}
	if age, idle, left := f.Age(w.now), f.Idle(w.now), f.Expires(w.now); age != 4500*time.Millisecond || idle != 500*time.Millisecond || left != 119500*time.Millisecond {
		t.Errorf("age %v, idle %v, expires in %v", age, idle, left)
	}
	w.block(verdict.Outside, packettest.UDP(families[0].out, netip.AddrPortFrom(families[0].in.Addr(), 1), nil).Frame())
	if f := w.only(); f.Sent(verdict.Outside).Packets != 2 {
		t.Errorf("a datagram that is not of the flow was counted: %+v", f)
	}
	rule, denied := w.table.RuleOf(&f)
	if rule == nil || rule.Name != "out" || denied {
		t.Errorf("%v, %v", rule, denied)
	}
}

// TestRuleOfFlow looks up the rule of a flow that an earlier policy accepted.
func TestRuleOfFlow(t *testing.T) {
	w := newWire(t, fromInside())
	w.pass(verdict.Inside, udp(families[0].in, families[0].out))
	for _, tt := range []struct {
		policy *filter.Policy
		rule   string
		denied bool
	}{
		{&filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "new", Action: verdict.Accept}}}, "new", false},
		{&filter.Policy{Stateful: true, Default: verdict.Accept}, "", false},
		{&filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "no", Action: verdict.Drop}}}, "no", true},
		{&filter.Policy{Stateful: true}, "", true},
	} {
		next := &wire{t, filter.Compile(tt.policy, w.table), w.now}
		before, f := next.only(), next.only()
		rule, denied := next.table.RuleOf(&f)
		if name := nameOf(rule); name != tt.rule || denied != tt.denied {
			t.Errorf("rule %q, denied %v; want %q, %v", name, denied, tt.rule, tt.denied)
		}
		if after := next.only(); after != before {
			t.Error("the flow was changed")
		}
	}
}

func nameOf(r *filter.Rule) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// TestDeleteFlows deletes some flows. The rules judge the next datagrams of these.
func TestDeleteFlows(t *testing.T) {
	w := newWire(t, fromInside())
	const flows = 5000
	w.many(flows)
	odd := func(f *flow.Flow, _ time.Duration) bool {
		var p packet.Parsed
		f.First(&p)
		return p.Src.As4()[3]%2 == 1
	}
	if n, err := w.table.DeleteFlows(w.clock, unhurried, odd); n != flows/2 || err != nil || w.table.Flows() != flows/2 {
		t.Errorf("%d deleted, %d left, %v", n, w.table.Flows(), err)
	}
	d := w.view(verdict.Outside, udp(families[0].out, families[0].in))
	for i := range byte(200) {
		d.Dst = netip.AddrFrom4([4]byte{10, 0, 0, i})
		if v := w.table.Judge(d, w.clock); v.Has(filter.OfFlow) != (i%2 == 0) {
			t.Fatalf("the reply to %v: %v", d.Dst, v)
		}
	}
	w.now += time.Second
	d = w.view(verdict.Inside, udp(families[0].in, families[0].out))
	d.Src = netip.AddrFrom4([4]byte{10, 0, 0, 1})
	if v := w.table.Judge(d, w.clock); v.Has(filter.OfFlow) || v.Action != verdict.Accept {
		t.Errorf("%v", v)
	}
	if n, err := w.table.DeleteFlows(w.clock, unhurried, func(f *flow.Flow, now time.Duration) bool { return odd(f, now) && f.Age(now) == 0 }); n != 1 || err != nil {
		t.Errorf("%d flows began again, %v", n, err)
	}
	enough := errors.New("enough")
	if n, err := w.table.DeleteFlows(w.clock, func(int) error { return enough }, nil); n != 0 || !errors.Is(err, enough) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestDeleteOthers replaces a flow by another one between the check and the removal.
func TestDeleteOthers(t *testing.T) {
	w := newWire(t, fromInside())
	w.pass(verdict.Inside, udp(families[0].in, families[0].out))
	n, err := w.table.DeleteFlows(w.clock, unhurried, func(*flow.Flow, time.Duration) bool {
		w.now += time.Hour
		w.pass(verdict.Inside, udp(families[0].in, families[0].out))
		return true
	})
	if n != 0 || err != nil || w.table.Flows() != 1 {
		t.Errorf("%d deleted, %d left, %v", n, w.table.Flows(), err)
	}
}

// TestNoFlows lists the flows of a stateless policy.
func TestNoFlows(t *testing.T) {
	table := filter.Compile(&filter.Policy{}, nil)
	n, err := table.DeleteFlows(nil, nil, nil)
	if n != 0 || errors.Join(err, table.WalkFlows(nil, nil, nil)) != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func BenchmarkWalkFlows(b *testing.B) {
	w := newWire(b, fromInside())
	w.many(1_000_000)
	for b.Loop() {
		n := 0
		_ = w.table.WalkFlows(w.clock, unhurried, func(*flow.Flow, time.Duration) error { n++; return nil })
		if n != 1_000_000 {
			b.Fatal(n)
		}
	}
}

// slots is a fast path that forwards nothing. It records the slots that it has to release.
type slots struct{ released []uint32 }

func (s *slots) Begin(uint32, *flow.Progress)          {}
func (s *slots) Load(uint32, *flow.Progress)           {}
func (s *slots) Store(uint32, *flow.Progress)          {}
func (s *slots) Release(slot uint32, _ *flow.Progress) { s.released = append(s.released, slot) }
func (s *slots) Forget(*flow.Key)                      {}

// TestFastFlow lists and deletes a flow that is in the fast path.
func TestFastFlow(t *testing.T) {
	w := newWire(t, fromInside())
	fast := new(slots)
	w.table.SetOffload(fast)
	question := udp(families[0].in, families[0].out)
	w.pass(verdict.Inside, question)
	var k flow.Key
	if f := w.only(); f.Fast() || !k.SetFast(w.view(verdict.Inside, question), false) || !w.table.Attach(&k, 7, w.now) {
		t.Fatal("the flow cannot be offloaded")
	}
	if f := w.only(); !f.Fast() {
		t.Error("the flow has no slot")
	}
	n, err := w.table.DeleteFlows(w.clock, unhurried, func(f *flow.Flow, _ time.Duration) bool { return f.Fast() })
	if n != 1 || err != nil || len(fast.released) != 1 || fast.released[0] != 7 {
		t.Errorf("%d deleted, %v released, %v", n, fast.released, err)
	}
}
