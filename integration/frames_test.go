package integration_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// expectFrames checks that the next frames of a packet socket equal want. The hosts must be mute.
func expectFrames(t *testing.T, s *lab.Tap, want ...[]byte) {
	t.Helper()
	for i, w := range want {
		got, err := s.Receive(time.Now().Add(waitTimeout))
		if err != nil {
			t.Fatalf("frame %d of %d, % x: %v", i, len(want), w[:min(len(w), 64)], err)
		}
		if !bytes.Equal(got, w) {
			t.Fatalf("frame %d of %d is\n% x\nwant\n% x", i, len(want), got, w)
		}
	}
}

// families lists the address families, with source and destination addresses that no host has, so that
// no kernel answers.
var families = []struct {
	name     string
	ipv6     bool
	src, dst netip.AddrPort
}{
	{"IPv4", false, netip.AddrPortFrom(packettest.InsideIPv4.Next().Next().Next(), 40000), netip.AddrPortFrom(packettest.OutsideIPv4, 5300)},
	{"IPv6", true, netip.AddrPortFrom(packettest.InsideIPv6.Next().Next().Next(), 40000), netip.AddrPortFrom(packettest.OutsideIPv6, 5300)},
}

// wires is a box between hosts, with a packet socket on each host.
type wires struct {
	*box
	sockets [verdict.Sides]*lab.Tap
}

// startMute starts the box between mute hosts.
func startMute(t *testing.T, rest string) *wires {
	t.Helper()
	n := newNetwork(t)
	mute(t, n)
	w := &wires{}
	for side, h := range n.Hosts {
		w.sockets[side] = tap(t, h)
	}
	w.box = start(t, n, rest)
	return w
}

// send sends frames from a side's host to the MAC address of the other host.
func (w *wires) send(t *testing.T, from verdict.Side, frames ...[]byte) {
	t.Helper()
	must(t, w.sockets[from].Send(lab.Between(w.Hosts[from], w.Hosts[from.Other()], frames...)...))
}

// markers is the number of frames that nothingPassed has sent.
var markers uint16

// nothingPassed checks that none of the frames sent before has passed: it sends another frame, which
// must be the next to arrive. The frame begins a new flow, so that it cannot overtake others in the
// fast path.
func (w *wires) nothingPassed(t *testing.T, from verdict.Side) {
	t.Helper()
	markers++
	src := netip.AddrPortFrom(families[0].src.Addr(), 50000+markers)
	d := packettest.UDP(src, netip.AddrPortFrom(families[0].dst.Addr(), 5300), []byte("marker"))
	marker := d.Frame()
	w.send(t, from, marker)
	expectFrames(t, w.sockets[from.Other()], marker)
}

// hasLinkLocal reports whether an interface has a usable IPv6 link-local address.
func hasLinkLocal(t *testing.T, ns *lab.Namespace, nic string) (has bool) {
	t.Helper()
	must(t, ns.Do(func() error {
		link, err := netlink.LinkByName(nic)
		if err != nil {
			return err
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V6)
		has = len(addresses) > 0
		return err
	}))
	return has
}

func TestFragmentsInAnyOrder(t *testing.T) {
	w := startMute(t, acceptAll)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			id := uint32(0)
			packettest.Permutations(4, func(order []int) {
				id++
				d := packettest.UDP(f.src, f.dst, packettest.Body(4000+int(id)))
				d.ID = id
				frames := d.Fragments(1040)
				for _, i := range order {
					w.send(t, verdict.Inside, frames[i])
				}
				expectFrames(t, w.sockets[verdict.Outside], frames...)
			})
		})
	}
}

// TestInterleavedFragments interleaves fragments of datagrams that must not be mixed: of one sender, of both
// sides, and of different VLANs.
func TestInterleavedFragments(t *testing.T) {
	w := startMute(t, acceptAll)
	for _, f := range families {
		datagram := func(size int, id uint32, tags ...packet.Tag) [][]byte {
			d := packettest.UDP(f.src, f.dst, packettest.Body(size))
			d.ID, d.Tags = id, tags
			return d.Fragments(1440) // leaves room for two tags
		}
		t.Run(f.name+" interleaved", func(t *testing.T) {
			a, b := datagram(4000, 1), datagram(3000, 2)
			w.send(t, verdict.Inside, b[2], a[1], b[0], a[0], b[1], a[2])
			expectFrames(t, w.sockets[verdict.Outside], append(b, a...)...)
		})
		t.Run(f.name+" same identification from both sides", func(t *testing.T) {
			a, b := datagram(4000, 3), datagram(4001, 3)
			for i := range a {
				w.send(t, verdict.Inside, a[i])
				w.send(t, verdict.Outside, b[len(b)-1-i])
			}
			expectFrames(t, w.sockets[verdict.Outside], a...)
			expectFrames(t, w.sockets[verdict.Inside], b...)
		})
		t.Run(f.name+" sides do not mix", func(t *testing.T) {
			a, b := datagram(2000, 4), datagram(2000, 4)
			w.send(t, verdict.Inside, a[0])
			w.send(t, verdict.Outside, b[1])
			w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.waiting == 1 })
			w.awaitCounters(t, verdict.Outside, func(c counters) bool { return c.waiting == 1 })
			w.nothingPassed(t, verdict.Inside)
			w.nothingPassed(t, verdict.Outside)
			w.send(t, verdict.Inside, a[1])
			w.send(t, verdict.Outside, b[0])
			expectFrames(t, w.sockets[verdict.Outside], a...)
			expectFrames(t, w.sockets[verdict.Inside], b...)
		})
		t.Run(f.name+" VLANs do not mix", func(t *testing.T) {
			ten, twenty := packet.Tag{TPID: 0x8100, TCI: 10}, packet.Tag{TPID: 0x8100, TCI: 20}
			service := packet.Tag{TPID: 0x88a8, TCI: 10}
			all := [][][]byte{
				datagram(2000, 5), datagram(2000, 5, ten), datagram(2000, 5, twenty),
				datagram(2000, 5, service), datagram(2000, 5, service, ten), datagram(2000, 5, service, twenty),
			}
			for i, frames := range all {
				w.send(t, verdict.Inside, frames[i%2])
			}
			w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.waiting == len(all) })
			w.nothingPassed(t, verdict.Inside)
			for i, frames := range all {
				w.send(t, verdict.Inside, frames[1-i%2])
				expectFrames(t, w.sockets[verdict.Outside], frames...)
			}
		})
	}
}

// TestAtomicFragments sends atomic fragments (RFC 6946) with the same identification. Each must pass at
// once, in modes reassemble and drop.
func TestAtomicFragments(t *testing.T) {
	for _, mode := range []string{"reassemble", "drop"} {
		t.Run(mode, func(t *testing.T) {
			w := startMute(t, fmt.Sprintf("[fragments]\nmode = %q\n", mode)+acceptAll)
			for size := range 3 {
				d := packettest.UDP(families[1].src, families[1].dst, packettest.Body(size))
				d.ID = 1
				frame := d.Fragment(0, d.Payload, false)
				w.send(t, verdict.Inside, frame)
				expectFrames(t, w.sockets[verdict.Outside], frame)
			}
			w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.reassembled == 0 && c.forwarded == 3 })
		})
	}
}
