package integration_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// onePort accepts only UDP port 5300.
const onePort = `
[policy]
default = "drop"
[[rule]]
name = "service"
action = "accept"
protocol = "udp"
dst_port = 5300
`

// TestDeniedPort sends fragmented datagrams to an accepted and a denied port.
func TestDeniedPort(t *testing.T) {
	w := startMute(t, onePort)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
				before := w.counters(t)[verdict.Inside].dropped["policy_default"]
				denied := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), 5301), packettest.Body(4000))
				denied.ID = uint32(order[0])
				allowed := packettest.UDP(f.src, f.dst, packettest.Body(4000))
				allowed.ID = denied.ID + 100
				for _, i := range order {
					w.send(t, verdict.Inside, denied.Fragments(1448)[i])
				}
				w.awaitCounters(t, verdict.Inside, func(c counters) bool {
					return c.waiting == 0 && c.dropped["policy_default"] == before+3
				})
				frames := allowed.Fragments(1448)
				w.send(t, verdict.Inside, frames...)
				expectFrames(t, w.sockets[verdict.Outside], frames...)
			}
		})
	}
}

// TestDeniedBetweenKernels sends fragmented datagrams to sockets on an accepted and a denied port.
func TestDeniedBetweenKernels(t *testing.T) {
	b := start(t, newNetwork(t), onePort)
	inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		before := b.counters(t)[verdict.Inside].dropped["policy_default"]
		client := listen(t, inside, ipv6, 0)
		open, closed := listen(t, outside, ipv6, 5300), listen(t, outside, ipv6, 5301)
		far := tap(t, outside)
		for _, server := range []netip.AddrPort{address(closed), address(open)} {
			_, err := client.WriteToUDPAddrPort(packettest.Body(4000), server)
			must(t, err)
		}
		arrive(t, open, packettest.Body(4000))
		b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.dropped["policy_default"] >= before+3 })
		frames, err := far.Drain()
		must(t, err)
		fragments := 0
		for _, f := range frames {
			var p packet.Parsed
			if p.Decode(f) == verdict.Passed && p.Fragment.Present {
				fragments++
			}
		}
		if fragments != 3 {
			t.Errorf("%d fragments passed, want the 3 to the accepted port", fragments)
		}
	})
}

// TestModeDrop checks that whole packets pass, and fragments do not.
func TestModeDrop(t *testing.T) {
	w := startMute(t, "[fragments]\nmode = \"drop\"\n"+acceptAll)
	for i, f := range families {
		w.send(t, verdict.Inside, packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)...)
		whole := packettest.UDP(f.src, f.dst, packettest.Body(mtuPayload(f.ipv6))).Frame()
		w.send(t, verdict.Inside, whole)
		expectFrames(t, w.sockets[verdict.Outside], whole)
		w.awaitCounters(t, verdict.Inside, func(c counters) bool {
			return c.forwarded == i+1 && c.waiting == 0 && c.dropped["fragment_mode"] == 3*(i+1)
		})
	}
}

// TestTimeout waits until incomplete datagrams have expired, and then sends the missing fragments, which
// must be dropped.
func TestTimeout(t *testing.T) {
	w := startMute(t, "[fragments]\ntimeout_ipv4 = \"200ms\"\ntimeout_ipv6 = \"400ms\"\n"+acceptAll)
	for _, f := range families {
		frames := packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)
		w.send(t, verdict.Inside, frames[:2]...)
	}
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.waiting == 0 && c.dropped["fragment_timeout"] == 4 })
	for _, f := range families {
		frames := packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)
		w.send(t, verdict.Inside, frames[2])
	}
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.forwarded == 0 && c.dropped["fragment_timeout"] == 6 })
	w.nothingPassed(t, verdict.Inside)
}

// TestContradictoryFragments sends fragments that a firewall could assemble differently from the host.
func TestContradictoryFragments(t *testing.T) {
	w := startMute(t, onePort)
	for i, f := range families {
		allowed := packettest.UDP(f.src, f.dst, packettest.Body(2000))
		denied := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), 5301), packettest.Body(2000))
		whole := allowed.Fragmentable()
		w.send(t, verdict.Inside,
			allowed.Fragment(0, whole[:1440], true),
			denied.Fragment(0, denied.Fragmentable()[:1440], true), // overwrites the ports
			allowed.Fragment(1440, whole[1440:], false))
		w.awaitCounters(t, verdict.Inside, func(c counters) bool {
			return c.waiting == 0 && c.forwarded == i && c.received == 4*i+3
		})
		w.nothingPassed(t, verdict.Inside)
	}
}

// TestRulesOnSidesAndTags uses rules that distinguish sides, VLANs, and fragments from whole packets.
func TestRulesOnSidesAndTags(t *testing.T) {
	w := startMute(t, `
[[rule]]
name = "marker"
action = "accept"
protocol = "udp"
dst_port = 5300
vlan = "none"
fragmented = false
[[rule]]
name = "inwards, in VLAN 10"
action = "accept"
from = "outside"
vlan = 10
fragmented = true
`)
	f := families[1]
	tagged := func(vid uint16) packettest.Datagram {
		d := packettest.UDP(f.src, f.dst, packettest.Body(2000))
		d.Tags = []packet.Tag{{TPID: 0x8100, TCI: vid}}
		return d
	}
	w.send(t, verdict.Inside, tagged(10).Fragments(1440)...)
	w.nothingPassed(t, verdict.Inside)
	w.send(t, verdict.Outside, tagged(11).Fragments(1440)...)
	w.nothingPassed(t, verdict.Outside)
	frames := tagged(10).Fragments(1440)
	slices.Reverse(frames)
	w.send(t, verdict.Outside, frames...)
	slices.Reverse(frames)
	expectFrames(t, w.sockets[verdict.Inside], frames...)
	for from, want := range [verdict.Sides]string{"forwarded 1, dropped 2", "forwarded 3, dropped 2"} {
		w.awaitCounters(t, verdict.Side(from), func(c counters) bool {
			return fmt.Sprintf("forwarded %d, dropped %d", c.forwarded, c.dropped["policy_default"]) == want
		})
	}
}

// TestStopWithFragmentsWaiting stops the program while it holds fragments of incomplete datagrams.
func TestStopWithFragmentsWaiting(t *testing.T) {
	w := startMute(t, acceptAll)
	for _, f := range families {
		w.send(t, verdict.Inside, packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)[:2]...)
	}
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.waiting == 4 })
	mark := len(w.stderr.String())
	w.stop(t)
	if c := parseCounters(t, w.stderr.String()[mark:])[verdict.Inside]; c.dropped["fragment_shutdown"] != 4 {
		t.Errorf("last counters %+v, want 4 frames dropped as fragment_shutdown", c)
	}
}
