package filter_test

import (
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestCacheableByRules has stateless policies decide on a UDP datagram from inside.
func TestCacheableByRules(t *testing.T) {
	everything := filter.Rule{Name: "everything", Action: verdict.Accept}
	limited := filter.Rule{Name: "limited", Action: verdict.Accept, Limit: filter.Rate{Count: 1, Per: time.Hour}}
	elsewhere := limited
	elsewhere.DstPorts = one[uint16](9)
	with := func(r filter.Rule, change func(*filter.Rule)) []filter.Rule {
		change(&r)
		return []filter.Rule{r}
	}
	for _, tt := range []struct {
		name   string
		rules  []filter.Rule
		other  verdict.Action // default action
		want   bool
		judged int // datagrams judged before
	}{
		{name: "accepted by a rule", rules: []filter.Rule{everything}, want: true},
		{name: "dropped by a rule", rules: with(everything, func(r *filter.Rule) { r.Action = verdict.Drop }), want: true},
		{name: "rejected by a rule", rules: with(everything, func(r *filter.Rule) { r.Action = verdict.Reject })},
		{name: "a rule with log", rules: with(everything, func(r *filter.Rule) { r.Log = true })},
		{name: "within a limit", rules: []filter.Rule{limited}},
		{name: "beyond a limit", rules: []filter.Rule{limited, everything}, judged: 1},
		{name: "beyond a limit, by default", rules: []filter.Rule{limited}, judged: 1},
		{name: "a limit on other datagrams", rules: []filter.Rule{elsewhere, everything}, want: true},
		{name: "accepted by default", other: verdict.Accept, want: true},
		{name: "dropped by default", want: true},
		{name: "rejected by default", other: verdict.Reject},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t, &filter.Policy{Default: tt.other, Rules: tt.rules})
			for range tt.judged {
				w.judge(verdict.Inside, udp(families[0].in, families[0].out))
			}
			if v := w.judge(verdict.Inside, udp(families[0].in, families[0].out)); v.Has(filter.Cacheable) != tt.want {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestNotCacheable has verdicts that depend on more than the key of a flow.
func TestNotCacheable(t *testing.T) {
	p := &filter.Policy{ARP: verdict.Accept, NonIP: verdict.Accept, NeighborDiscovery: verdict.Accept, Default: verdict.Accept,
		Rules: []filter.Rule{{Name: "dns", Action: verdict.Accept, DstPorts: one[uint16](53)}}}
	short := packettest.Datagram{Src: packettest.InsideIPv4, Dst: packettest.OutsideIPv4, Protocol: packet.ProtocolUDP, Payload: []byte{1, 2}}
	solicitation := packettest.Datagram{Src: packettest.InsideIPv6, Dst: packettest.OutsideIPv6, TTL: 255,
		Protocol: packet.ProtocolICMPv6, Payload: append([]byte{135, 0}, make([]byte, 22)...)}
	for name, frame := range map[string][]byte{
		"ARP":                    short.Ethernet(packet.EtherTypeARP, make([]byte, 28)),
		"another EtherType":      short.Ethernet(0x88b5, make([]byte, 28)),
		"neighbour solicitation": solicitation.Frame(),
		"no transport header":    short.Frame(),
	} {
		w := newWire(t, p)
		if v := w.judge(verdict.Inside, frame); v.Has(filter.Cacheable) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestCacheableFlows follows flows of a stateful policy from beginning to end.
func TestCacheableFlows(t *testing.T) {
	bothFamilies(t, func(w *wire, f family) {
		expect := func(what string, from verdict.Side, frame []byte, want bool) {
			t.Helper()
			if v := w.judge(from, frame); v.Has(filter.Cacheable) != want {
				t.Errorf("%s: %+v", what, v)
			}
		}
		table := filter.Compile(&filter.Policy{Stateful: true, Rules: []filter.Rule{
			{Name: "out", Action: verdict.Accept, From: side(verdict.Inside)}}}, nil)
		w.table = table
		expect("a reply without a request", verdict.Outside, udp(f.out, f.in), true)
		expect("the first of a flow", verdict.Inside, udp(f.in, f.out), false)
		expect("the second", verdict.Inside, udp(f.in, f.out), true)
		expect("the first answer", verdict.Outside, udp(f.out, f.in), true)
		expect("an error about it", verdict.Outside, icmpError(f, f.out.Addr(), f.in.Addr(), map[uint8]uint8{1: 3, 58: 1}[f.icmp], udp(f.in, f.out)[14:]), false)
		expect("a request", verdict.Inside, echo(f, verdict.Inside, false, 7), false)
		expect("its answer", verdict.Outside, echo(f, verdict.Outside, true, 7), true)
		expect("a malformed one", verdict.Inside, func() []byte {
			d := packettest.UDP(f.in, f.out, nil)
			d.Payload[5] = 200 // longer than the datagram
			return d.Frame()
		}(), false)

		h := &hosts{w, f}
		expect("SYN", verdict.Inside, h.tcp(verdict.Inside, syn, inISN, 0, 0), false)
		expect("SYN/ACK", verdict.Outside, h.tcp(verdict.Outside, syn|ack, outISN, inISN+1, 0), false)
		expect("ACK", verdict.Inside, h.tcp(verdict.Inside, ack, inISN+1, outISN+1, 0), true)
		expect("out of the window", verdict.Inside, h.tcp(verdict.Inside, ack, 1<<20, outISN+1, 0), false)
		expect("data", verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 100), true)
		expect("FIN", verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+101, inISN+1, 0), false)
		expect("after it", verdict.Inside, h.tcp(verdict.Inside, ack, inISN+1, outISN+102, 0), false)
	})
}

// TestCacheableFlowsByRules has datagrams of known flows that the rules decide on again.
func TestCacheableFlowsByRules(t *testing.T) {
	f := families[0]
	view := func(w *wire, from verdict.Side, fragmented bool) filter.Verdict {
		frame := udp(f.in, f.out)
		if from == verdict.Outside {
			frame = udp(f.out, f.in)
		}
		v := w.view(from, frame)
		v.Fragmented = fragmented
		return w.table.Judge(v, w.clock)
	}
	out := filter.Rule{Name: "out", Action: verdict.Accept, From: side(verdict.Inside)}
	limited := out
	limited.Limit = filter.Rate{Count: 1000, Per: time.Second}
	noFragments := filter.Rule{Name: "no fragments", Action: verdict.Drop, Fragmented: yes(true)}
	someFragments := filter.Rule{Name: "some fragments", Action: verdict.Accept, Fragmented: yes(true), Limit: filter.Rate{Count: 1000, Per: time.Second}}
	for _, tt := range []struct {
		name       string
		rules      []filter.Rule
		anyVLANs   bool
		from       verdict.Side
		fragmented bool
		want       bool
	}{
		{"the flow's rule has no limit", []filter.Rule{out}, false, verdict.Inside, false, true},
		{"the flow's rule has a limit", []filter.Rule{limited}, false, verdict.Inside, false, false},
		{"the other side is not limited", []filter.Rule{limited}, false, verdict.Outside, false, true},
		{"fragments, by the rules", []filter.Rule{out}, false, verdict.Inside, true, true},
		{"fragments, by rules with VLANs", []filter.Rule{out}, true, verdict.Inside, true, false},
		{"fragments that are denied", []filter.Rule{noFragments, out}, false, verdict.Inside, true, false},
		{"fragments of the other side, by no rule", []filter.Rule{out}, false, verdict.Outside, true, true},
		{"fragments of the other side, denied", []filter.Rule{noFragments, out}, false, verdict.Outside, true, false},
		{"fragments of the other side, within a limit", []filter.Rule{someFragments, out, noFragments}, false, verdict.Outside, true, false},
		{"whole packets, if fragments are denied", []filter.Rule{noFragments, out}, false, verdict.Outside, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t, &filter.Policy{Stateful: true, AnyVLANs: tt.anyVLANs, Rules: tt.rules})
			view(w, verdict.Inside, false)
			view(w, verdict.Outside, false)
			if v := view(w, tt.from, tt.fragmented); v.Has(filter.Cacheable) != tt.want {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestCacheableAcrossReload denies a flow, and then accepts it again.
func TestCacheableAcrossReload(t *testing.T) {
	f := families[0]
	w := newWire(t, fromInside())
	expect := func(what string, from verdict.Side, want bool) {
		t.Helper()
		frame := udp(f.in, f.out)
		if from == verdict.Outside {
			frame = udp(f.out, f.in)
		}
		if v := w.judge(from, frame); v.Has(filter.Cacheable) != want {
			t.Errorf("%s: %+v", what, v)
		}
	}
	expect("the first", verdict.Inside, false)
	expect("an answer", verdict.Outside, true)
	w.table = filter.Compile(&filter.Policy{Stateful: true}, w.table)
	expect("denied", verdict.Inside, false)
	expect("its answer", verdict.Outside, false)
	w.table = filter.Compile(fromInside(), w.table)
	expect("an answer before the origin was accepted again", verdict.Outside, false)
	expect("accepted again", verdict.Inside, true)
	expect("the answer to that", verdict.Outside, true)
}
