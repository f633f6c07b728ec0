package wire

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

func TestFragmentsAreJudgedAsOne(t *testing.T) {
	for _, family := range []struct{ client, server netip.AddrPort }{{client4, server4}, {client6, server6}} {
		run(t, onlyPort53(), func(b *testWire) {
			allowed := packettest.UDP(family.client, family.server, packettest.Body(4000))
			allowed.ID = 1
			frames := allowed.Fragments(1448)
			b.send(verdict.Inside, frames[2], frames[1])
			b.expect(verdict.Outside)
			b.counted(verdict.Inside, 2, 0, 2, nil)
			b.send(verdict.Inside, frames[0])
			b.expect(verdict.Outside, frames...)

			denied := packettest.UDP(family.client, netip.AddrPortFrom(family.server.Addr(), 54), packettest.Body(4000))
			denied.ID = 2
			b.send(verdict.Inside, denied.Fragments(1448)...)
			b.expect(verdict.Outside)
			b.counted(verdict.Inside, 6, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 3})
			if n := b.Counters(verdict.Inside).Reassembled; n != 2 {
				b.Errorf("%d datagrams reassembled, want 2", n)
			}
		})
	}
}

// TestHeaderSpansFragments has the ports of an IPv4 datagram in its first fragment and the rest
// of the TCP header in others. Only the reassembled header is complete.
func TestHeaderSpansFragments(t *testing.T) {
	run(t, onlyPort53(), func(b *testWire) {
		frames := packettest.TCP(client4, server4, 2).Fragments(8)
		b.send(verdict.Inside, frames...)
		b.expect(verdict.Outside, frames...)
	})
}

// TestSidesNeverMix sends the halves of a datagram from different sides.
func TestSidesNeverMix(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		frames := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)
		b.send(verdict.Inside, frames[0])
		b.send(verdict.Outside, frames[1])
		b.expect(verdict.Outside)
		b.expect(verdict.Inside)
		b.send(verdict.Inside, frames[1])
		b.send(verdict.Outside, frames[0])
		b.expect(verdict.Outside, frames...)
		b.expect(verdict.Inside, frames...)
	})
}

// TestTimersRunWithoutTraffic reaches the deadline of a datagram without traffic.
func TestTimersRunWithoutTraffic(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		b.send(verdict.Inside, packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)[0])
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 1, nil)
		time.Sleep(2 * expiryInterval)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 0, map[verdict.Reason]uint64{verdict.FragmentTimeout: 1})
		if u := b.Usage(); u != (stack.Usage{}) {
			b.Errorf("%+v", u)
		}
	})
}

// TestEmitWhole has datagrams leave as a whole packet, and in larger fragments than they
// arrived in.
func TestEmitWhole(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			runConfig(t, Config{Policy: onlyPort53(), Mode: packet.ModeReassemble, Emit: packet.EmitWhole}, func(b *testWire) {
				short := packettest.UDP(f.client, f.server, packettest.Body(1000))
				whole := short.Frame()
				long := packettest.UDP(f.client, f.server, packettest.Body(4000))
				long.ID = 7
				b.send(verdict.Inside, short.Fragments(256)...)
				b.expect(verdict.Outside, whole)

				first := long.Fragment(0, long.Payload[:64], true)
				second := long.Fragment(64, long.Payload[64:64+1400], true)
				rest := [][]byte{
					long.Fragment(1464, long.Payload[1464:1464+1400], true),
					long.Fragment(2864, long.Payload[2864:], false),
				}
				b.send(verdict.Inside, first, second, rest[0], rest[1])
				b.expect(verdict.Outside, long.Fragments(1400)...)
				b.counted(verdict.Inside, 8, 8, 0, nil)

				mixed := packettest.UDP(f.client, f.server, packettest.Body(1000))
				mixed.ID = 9
				frames := mixed.Fragments(800)
				mixed.TrafficClass = 3
				b.send(verdict.Inside, frames[0], mixed.Fragments(800)[1])
				b.expect(verdict.Outside)
				b.counted(verdict.Inside, 10, 8, 0, map[verdict.Reason]uint64{verdict.FragmentECN: 2})
			})
		})
	}
}

// TestRefusedRebuiltFrames has a device refuse all frames, which are fewer than arrived.
func TestRefusedRebuiltFrames(t *testing.T) {
	b, d := scripted(&script{refuseEach: 1})
	defer b.table.Close()
	d.fragments.(*reassembly).emit = packet.EmitWhole
	for _, frame := range packettest.UDP(client4, server4, packettest.Body(1000)).Fragments(256) {
		d.take(&tun.Frame{Data: frame})
	}
	d.flush()
	s := b.Counters(verdict.Inside)
	if s.Received() != 4 || s.Waiting != 0 || s.Dropped[verdict.EgressFailed] == 0 {
		t.Errorf("%+v", s)
	}
}
