package integration_test

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestFramesUnchanged sends frames of every kind in both directions. They must arrive unchanged.
func TestFramesUnchanged(t *testing.T) {
	w := startMute(t, acceptAll)
	frames := append(etherTypes(), groupAddresses()...)
	frames = append(frames, packets()...)
	for from := range verdict.Side(verdict.Sides) {
		t.Run("from "+from.String(), func(t *testing.T) {
			for _, f := range frames {
				copy(f[6:], w.Hosts[from].MAC)
				must(t, w.sockets[from].Send(f))
				expectFrames(t, w.sockets[from.Other()], f)
			}
		})
	}
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received == len(frames) && c.forwarded == len(frames) })
}

// etherTypes returns frames without IP, with known and unknown EtherTypes and with 802.3 lengths.
func etherTypes() (frames [][]byte) {
	for _, etherType := range []uint16{
		0x0806, // ARP
		0x8035, // RARP
		0x0842, // Wake-on-LAN
		0x8847, // MPLS
		0x8863, // PPPoE discovery
		0x8864, // PPPoE session
		0x88b5, // IEEE local experimental
		0x88e5, // MACsec
		0x88f7, // PTP
		0x8902, // CFM
		0x9000, // loopback
		0x9100, // an old type of VLAN tag
		0x22f0, // AVTP
		0xffff, // reserved
		0x0003, // 802.3 length of the LLC header alone
		0x0026, // 802.3 length, with padding after most contents
		0x05dc, // largest 802.3 length
		0x05ff, // neither a length nor a type
	} {
		for _, size := range []int{0, 3, 28, 46, 1500} {
			if etherType == 0x8864 && size < 8 {
				continue // shorter than the PPPoE header; the kernel's br_netfilter drops such frames
			}
			frames = append(frames, packettest.Datagram{}.Ethernet(etherType, packettest.Body(size)))
		}
	}
	broadcast := packettest.Datagram{}.Ethernet(0x0806, packettest.Body(46))
	copy(broadcast, "\xff\xff\xff\xff\xff\xff")
	return append(frames, broadcast)
}

// groupAddresses returns frames to the link-local groups that bridges do not forward, and to the
// group addresses of other protocols.
func groupAddresses() (frames [][]byte) {
	add := func(group string, etherType uint16) {
		f := packettest.Datagram{}.Ethernet(etherType, packettest.Body(46))
		copy(f, group)
		frames = append(frames, f)
	}
	for last := range byte(0x10) {
		add(string([]byte{0x01, 0x80, 0xc2, 0, 0, last}), 0x88b5)
	}
	add("\x01\x80\xc2\x00\x00\x00", 38)     // spanning tree
	add("\x01\x80\xc2\x00\x00\x02", 0x8809) // LACP
	add("\x01\x80\xc2\x00\x00\x03", 0x888e) // EAPOL
	add("\x01\x80\xc2\x00\x00\x0e", 0x88cc) // LLDP
	add("\x01\x80\xc2\x00\x00\x21", 0x88f5) // MVRP
	add("\x01\x00\x0c\xcc\xcc\xcc", 46)     // CDP
	add("\x01\x1b\x19\x00\x00\x00", 0x88f7) // PTP
	return frames
}

// packets returns IP packets with all kinds of tags and with LLC: short packets with padding, and
// packets as long as the MTU permits.
func packets() (frames [][]byte) {
	const q, ad = 0x8100, 0x88a8
	for _, f := range families {
		for _, tags := range [][]packet.Tag{
			nil,
			{{TPID: q, TCI: 0xe000}}, // only a priority
			{{TPID: q, TCI: 0xf00a}}, // priority 7, drop eligible, VLAN 10
			{{TPID: ad, TCI: 0x1fff}},
			{{TPID: ad, TCI: 0x300a}, {TPID: q, TCI: 0xb00b}},
			{{TPID: q, TCI: 10}, {TPID: q, TCI: 0xffff}},
			{{TPID: q, TCI: 10}, {TPID: ad, TCI: 11}},
			{{TPID: ad, TCI: 10}, {TPID: ad, TCI: 0}},
		} {
			for _, size := range []int{0, 1, 5, 1000} {
				d := packettest.UDP(f.src, f.dst, packettest.Body(size))
				d.Tags = tags
				frame := d.Frame()
				frames = append(frames, frame)
				if len(frame) < 60 { // the box must not change padding
					frames = append(frames, append(d.Frame(), packettest.Body(60-len(frame))...))
				}
			}
		}
		for _, llc := range [][]byte{packettest.SNAP, {0xaa, 0xaa, 3, 0, 0, 0xf8}, {0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0, 0xe0, 10}} {
			for _, size := range []int{0, 5, 1000} {
				d := packettest.UDP(f.src, f.dst, packettest.Body(size))
				d.LLC = llc
				frames = append(frames, append(d.Frame(), packettest.Body(max(60-len(d.Frame()), 0))...))
			}
		}
		largest := packettest.UDP(f.src, f.dst, packettest.Body(mtuPayload(f.ipv6)))
		frames = append(frames, largest.Frame())
		largest.Tags = []packet.Tag{{TPID: q, TCI: 10}}
		frames = append(frames, largest.Frame())
	}
	return frames
}

// mtuPayload returns the UDP payload length of the largest whole packet.
func mtuPayload(ipv6 bool) int {
	if ipv6 {
		return lab.MTU - 40 - 8
	}
	return lab.MTU - 20 - 8
}

// TestFullSizeBehindTags sends packets of exactly the MTU with tags of every kind. It uses a trunk,
// because the kernel does not allow a packet socket to send such long frames.
func TestFullSizeBehindTags(t *testing.T) {
	w := startMute(t, acceptAll)
	for side, h := range w.Hosts {
		from := verdict.Side(side)
		trunk := openTrunk(t, h)
		for _, tpids := range [][]uint16{{0x88a8}, {0x88a8, 0x8100}, {0x8100, 0x8100}, {0x8100, 0x88a8}, {0x88a8, 0x88a8}} {
			for _, f := range families {
				t.Run(fmt.Sprintf("%s from %v %#x", f.name, from, tpids), func(t *testing.T) {
					d := packettest.UDP(f.src, f.dst, packettest.Body(mtuPayload(f.ipv6)))
					for i, tpid := range tpids {
						d.Tags = append(d.Tags, packet.Tag{TPID: tpid, TCI: uint16(0xf00a + i)})
					}
					whole := lab.Between(h, w.Hosts[from.Other()], d.Frame())
					must(t, trunk.Send(whole...))
					expectFrames(t, w.sockets[from.Other()], whole...)

					d.Payload = packettest.UDP(f.src, f.dst, packettest.Body(65507)).Payload
					fragments := lab.Between(h, w.Hosts[from.Other()], d.Fragments(mtuPayload(f.ipv6)&^7)...)
					must(t, trunk.Send(fragments...))
					expectFrames(t, w.sockets[from.Other()], fragments...)
				})
			}
		}
	}
}

// TestTrailers sends packets of exactly the MTU, followed by a trailer of up to 4 bytes, the length of
// a frame check sequence. The kernel's interfaces accept no longer trailer. The test raises the MTU of
// the sending host, so that the host can send such frames.
func TestTrailers(t *testing.T) {
	w := startMute(t, acceptAll)
	for side, h := range w.Hosts {
		from := verdict.Side(side)
		must(t, h.Do(func() error {
			link, err := netlink.LinkByName(h.NIC)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, lab.MTU+4)
		}))
		for _, f := range families {
			for trailer := 1; trailer <= 4; trailer++ {
				t.Run(fmt.Sprintf("%d bytes behind %s from %v", trailer, f.name, from), func(t *testing.T) {
					behind := func(frames ...[]byte) {
						for i := range frames {
							frames[i] = append(frames[i], packettest.Body(trailer)...)
						}
						w.send(t, from, frames...)
						expectFrames(t, w.sockets[from.Other()], lab.Between(h, w.Hosts[from.Other()], frames...)...)
					}
					d := packettest.UDP(f.src, f.dst, packettest.Body(mtuPayload(f.ipv6)))
					behind(d.Frame())
					d.ID, d.Payload = uint32(trailer), packettest.UDP(f.src, f.dst, packettest.Body(5000)).Payload
					behind(d.Fragments(mtuPayload(f.ipv6) &^ 7)...)
				})
			}
		}
	}
}
