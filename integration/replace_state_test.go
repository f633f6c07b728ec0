package integration_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"fragwall/integration/meter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// replaceMute starts a box between mute hosts, and returns the joints before the start. The test must end
// the box.
func replaceMute(t *testing.T, rest string) (w *wires, before string) {
	t.Helper()
	n, before := newMiddle(t)
	mute(t, n)
	w = &wires{}
	for side, h := range n.Hosts {
		w.sockets[side] = tap(t, h)
	}
	w.box = startBox(t, n, devices+rest)
	return w, before
}

// came waits until the program has received more frames from the inside than before, by the given number.
func (w *wires) came(t *testing.T, before counters, more int) {
	t.Helper()
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received == before.received+more })
}

// TestReplaceAmidDatagrams replaces the process between the fragments of datagrams, at each position, and
// with fragments in order and in reverse order.
func TestReplaceAmidDatagrams(t *testing.T) {
	for _, mode := range []string{"reassemble", "validate"} {
		t.Run(mode, func(t *testing.T) {
			w, before := replaceMute(t, fmt.Sprintf("[fragments]\nmode = %q\n", mode)+acceptAll)
			type unfinished struct{ rest, want [][]byte }
			for split := 1; split <= 2; split++ {
				var all []unfinished
				counted, sent := w.counters(t)[verdict.Inside], 0
				for i, f := range families {
					for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
						d := packettest.UDP(f.src, f.dst, packettest.Body(4000))
						d.ID = uint32(100*split + 10*i + order[0])
						var frames [][]byte
						for _, at := range order {
							frames = append(frames, d.Fragments(1448)[at])
						}
						w.send(t, verdict.Inside, frames[:split]...)
						sent += split
						u := unfinished{frames[split:], frames}
						if mode == "validate" && order[0] == 0 { // after the first fragment, the others do not wait
							expectFrames(t, w.sockets[verdict.Outside], frames[:split]...)
							u.want = frames[split:]
						}
						all = append(all, u)
					}
				}
				w.came(t, counted, sent)
				w.replace(t)
				for _, u := range all {
					w.send(t, verdict.Inside, u.rest...)
					awaitAll(t, w.sockets[verdict.Outside], u.want)
				}
				w.nothingPassed(t, verdict.Inside)
			}
			w.endAs(t, before)
		})
	}
}

// awaitAll checks that the next frames of a packet socket are the given ones, in any order.
func awaitAll(t *testing.T, s *lab.Tap, want [][]byte) {
	t.Helper()
	missing := map[string]int{}
	for _, f := range want {
		missing[string(f)]++
	}
	for range want {
		got, err := s.Receive(time.Now().Add(waitTimeout))
		must(t, err)
		if missing[string(got)]--; missing[string(got)] < 0 {
			t.Fatalf("frame % x was not sent, or arrived twice", got)
		}
	}
}

// TestReplaceKeepsPoison replaces the process after fragments that contradict each other. The key of the
// datagram must stay poisoned.
func TestReplaceKeepsPoison(t *testing.T) {
	for _, mode := range []string{"reassemble", "validate"} {
		t.Run(mode, func(t *testing.T) {
			w, before := replaceMute(t, fmt.Sprintf("[fragments]\nmode = %q\n", mode)+acceptAll)
			counted := w.counters(t)[verdict.Inside]
			for _, f := range families {
				d := packettest.UDP(f.src, f.dst, packettest.Body(4000))
				w.send(t, verdict.Inside, d.Fragments(1448)[2], d.Fragment(2888, make([]byte, 800), true))
			}
			w.came(t, counted, 4)
			w.replace(t)
			for _, f := range families {
				w.send(t, verdict.Inside, packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)[:2]...)
			}
			w.nothingPassed(t, verdict.Inside)
			w.endAs(t, before)
		})
	}
}

// flowCount matches the line of the metrics with the number of flows.
var flowCount = regexp.MustCompile(`(?m)^fragwall_flows (\S+)$`)

// flowCount returns the number of flows according to the metrics.
func (b *box) flowCount(t *testing.T) int {
	t.Helper()
	m := flowCount.FindStringSubmatch(fetch(t, b.Middle, "/metrics"))
	if m == nil {
		t.Fatal("the metrics have no number of flows")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	must(t, err)
	return int(n)
}

// TestReplaceManyFlows replaces a process with many flows under load.
func TestReplaceManyFlows(t *testing.T) {
	flowsWanted := map[bool]int{false: 5000, true: 200_000}[*fullHandover > 0]
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	inside := tap(t, n.Hosts[verdict.Inside])
	dst := netip.AddrPortFrom(packettest.OutsideIPv6, 5300)
	for i := 0; i < flowsWanted; i++ {
		src := netip.AddrPortFrom(sourceOf(i, true), 40000)
		must(t, inside.Send(lab.Between(n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], packettest.UDP(src, dst, nil).Frame())...))
		if i%1000 == 0 { // do not overflow the TAP's queue
			b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received > i })
		}
	}
	had := 0
	eventually(t, func() error {
		if had = b.flowCount(t); had < flowsWanted {
			return fmt.Errorf("%d flows, want %d", had, flowsWanted)
		}
		return nil
	})
	l := handoverScale().load
	b.underLoad(t, l, func(m *meter.Meter) {
		b.replace(t)
		flows(t, m, l, 200*time.Millisecond)
	})
	if has := b.flowCount(t); has < had {
		t.Errorf("%d flows after the hand-over, %d before", has, had)
	}
	b.endAs(t, before)
}

// TestReplaceJudgesAgain runs the new process with another policy. Flows that the new policy does not accept
// must end, as after a reload, and the others must continue.
func TestReplaceJudgesAgain(t *testing.T) {
	n, before := newMiddle(t)
	b := startBox(t, n, devices+stateful)
	inside, outside := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	a := listen(t, inside, true, 0)
	kept, ended := listen(t, outside, true, 5300), listen(t, outside, true, 5301)
	for _, c := range []*net.UDPConn{kept, ended} {
		_, err := a.WriteToUDPAddrPort([]byte("hello"), address(c))
		must(t, err)
		arrive(t, c, []byte("hello"))
	}
	must(t, os.WriteFile(b.file, []byte(devices+strings.Replace(stateful, "from = ", "protocol = \"udp\"\ndst_port = \"!5301\"\nfrom = ", 1)), 0o600))
	b.replace(t)
	mark := b.counters(t)[verdict.Outside].dropped["flow_denied"]
	_, err := ended.WriteToUDPAddrPort([]byte("of no flow"), address(a))
	must(t, err)
	b.awaitCounters(t, verdict.Outside, func(c counters) bool { return c.dropped["flow_denied"] > mark })
	_, err = kept.WriteToUDPAddrPort([]byte("of a flow"), address(a))
	must(t, err)
	arrive(t, a, []byte("of a flow"))
	b.endAs(t, before)
}
