package wire

import (
	"net/netip"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

func TestWholePackets(t *testing.T) {
	run(t, onlyPort53(), func(b *testWire) {
		request := packettest.UDP(client4, server4, packettest.Body(100)).Frame()
		reply := packettest.UDP(server6, client6, packettest.Body(100)).Frame()
		padded := append(packettest.UDP(client6, server6, nil).Frame(), 1, 2, 3)
		denied := packettest.UDP(client4, netip.AddrPortFrom(server4.Addr(), 54), nil).Frame()
		arp := packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28))
		b.send(verdict.Inside, request, denied, padded, denied[:20], arp)
		b.send(verdict.Outside, reply)
		b.expect(verdict.Outside, request, padded, arp)
		b.expect(verdict.Inside, reply)
		b.counted(verdict.Inside, 5, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1, verdict.IPv4Header: 1})
		b.counted(verdict.Outside, 1, 1, 0, nil)
	})
}

func TestWholePacketsAllocateNothing(t *testing.T) {
	frame := packettest.UDP(client6, server6, packettest.Body(64)).Frame()
	batch := make([]tun.Frame, 64)
	for i := range batch {
		batch[i] = tun.Frame{Data: frame}
	}
	b, d := scripted(&script{})
	defer b.table.Close()
	forward := func() {
		for i := range batch {
			d.take(&batch[i])
		}
		d.flush()
	}
	forward() // grows the slices of the batch
	if n := testing.AllocsPerRun(100, forward); n != 0 {
		t.Errorf("%v allocations for 64 packets", n)
	}
}

// TestStateful forwards a reply in fragments, until the flow expires.
func TestStateful(t *testing.T) {
	inside := verdict.Inside
	policy := &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "out", Action: verdict.Accept, From: &inside}}}
	run(t, policy, func(b *testWire) {
		request := packettest.UDP(client6, server6, packettest.Body(3000)).Fragments(1448)
		reply := packettest.UDP(server6, client6, packettest.Body(3000)).Fragments(1448)
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Inside)
		b.send(verdict.Inside, request...)
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Outside, request...)
		b.expect(verdict.Inside, reply...)
		time.Sleep(10 * time.Minute)
		if n := b.Policy().Flows(); n != 0 {
			t.Errorf("%d flows after 10 minutes", n)
		}
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Inside)
	})
}

func TestExceedsMTU(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		fits := packettest.UDP(client4, server4, packettest.Body(1472))
		fits.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}}
		long := packettest.UDP(client4, server4, packettest.Body(1473)).Frame()
		fragment := packettest.UDP(client4, server4, packettest.Body(4000)).Fragments(1488)[0]
		llc := packettest.UDP(client4, server4, packettest.Body(1464))
		llc.LLC = packettest.SNAP
		longer := llc
		longer.Options = []byte{1, 1, 1, 0}
		b.send(verdict.Inside, fits.Frame(), long, fragment, llc.Frame(), longer.Frame())
		b.expect(verdict.Outside, fits.Frame(), llc.Frame())
		b.counted(verdict.Inside, 5, 2, 0, map[verdict.Reason]uint64{verdict.ExceedsMTU: 3})
	})
}

// TestTrailers sends packets of exactly the MTU with bytes after them, such as a frame check
// sequence or a switch's timestamp. The bytes stay if the egress side accepts so long a frame.
func TestTrailers(t *testing.T) {
	single := []packet.Tag{{TPID: 0x8100, TCI: 10}}
	double := []packet.Tag{{TPID: 0x88a8, TCI: 10}, {TPID: 0x8100, TCI: 11}}
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		for _, tags := range [][]packet.Tag{nil, single, double} {
			runConfig(t, Config{Policy: acceptAll(), Mode: mode}, func(b *testWire) {
				sent := uint64(0)
				for trailer := range 40 {
					for _, hosts := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
						full, room := 1472, 4
						if hosts[0].Addr().Is6() {
							full -= 20
						}
						if len(tags) > 1 {
							room = 0
						}
						whole := packettest.UDP(hosts[0], hosts[1], packettest.Body(full))
						parted := packettest.UDP(hosts[0], hosts[1], packettest.Body(2000))
						whole.Tags, parted.Tags, parted.ID = tags, tags, uint32(trailer)
						frames := append([][]byte{whole.Frame()}, parted.Fragments(full&^7+8)...)
						if hosts[0].Addr().Is6() {
							frames = append(frames[:1], parted.Fragments(full&^7)...)
						}
						var came, want [][]byte
						for _, f := range frames {
							came = append(came, append(f[:len(f):len(f)], packettest.Body(trailer)...))
							if longest := 1514 + 4*len(tags) + room; len(f)+trailer <= longest {
								f = came[len(came)-1]
							}
							want = append(want, f)
						}
						b.send(verdict.Inside, came...)
						b.expect(verdict.Outside, want...)
						sent += uint64(len(came))
					}
				}
				b.counted(verdict.Inside, sent, sent, 0, nil)
			})
		}
	}
}

// TestNoLength sends frames larger than the MTU with an IP length field of 0. A host sends
// these if its NIC cuts packets into segments.
func TestNoLength(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		zero := func(d packettest.Datagram, at int) []byte {
			f := d.Frame()
			f[at], f[at+1] = 0, 0
			return f
		}
		long4 := zero(packettest.UDP(client4, server4, packettest.Body(1473)), 16)
		long6 := zero(packettest.UDP(client6, server6, packettest.Body(1473)), 18)
		jumbogram := packettest.UDP(client6, server6, packettest.Body(1473))
		jumbogram.FirstBefore, jumbogram.Before = 0, []byte{17, 0, 0xc2, 4, 0, 0, 5, 0xd1}
		short := zero(packettest.UDP(client4, server4, packettest.Body(1472)), 16)
		b.send(verdict.Inside, long4, long6, zero(jumbogram, 18), short)
		b.expect(verdict.Outside)
		b.counted(verdict.Inside, 4, 0, 0, map[verdict.Reason]uint64{verdict.ExceedsMTU: 3, verdict.IPv4Length: 1})
	})
}

// TestShedByLanes counts frames that a lane shed before they were read.
func TestShedByLanes(t *testing.T) {
	b, _ := scripted(&script{shed: 7})
	if s := b.Counters(verdict.Inside); s.Dropped[verdict.FragmentShed] != 7 || s.Received() != 7 {
		t.Errorf("%d shed, %d received; want 7 each", s.Dropped[verdict.FragmentShed], s.Received())
	}
}
