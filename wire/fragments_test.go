package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

func TestModeDrop(t *testing.T) {
	runConfig(t, Config{Policy: acceptAll()}, func(b *testWire) {
		d := packettest.UDP(client6, server6, packettest.Body(2000))
		atomic := packettest.UDP(client6, server6, nil)
		whole := atomic.Fragment(0, atomic.Payload, false)
		b.send(verdict.Inside, append(d.Fragments(1448), whole)...)
		b.expect(verdict.Outside, whole)
		b.counted(verdict.Inside, 3, 1, 0, map[verdict.Reason]uint64{verdict.FragmentMode: 2})
	})
}

func TestModeFirstAcceptRest(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeFirstAcceptRest}, func(b *testWire, allowed, denied [][]byte) {
		b.send(verdict.Inside, allowed[1], allowed[0], denied[0], denied[1])
		b.expect(verdict.Outside, allowed[1], allowed[0], denied[1])
		b.counted(verdict.Inside, 4, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1})
	})
}

func TestModeFirstDropRest(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeFirstDropRest}, func(b *testWire, allowed, denied [][]byte) {
		b.send(verdict.Inside, allowed[1], allowed[0], denied[0], denied[1])
		b.expect(verdict.Outside, allowed[0])
		b.counted(verdict.Inside, 4, 1, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1, verdict.FragmentMode: 2})
	})
}

// overload returns one batch of a lane that is behind: first fragments of incomplete datagrams,
// each from a network of its own; then the fragments of an honest datagram; then a whole
// packet.
const (
	overloadFlood   = 500
	overloadBatches = 5
	overloadTaken   = 48 // fragments of the flood, per batch
)

func overload() (batch []tun.Frame) {
	add := func(frames ...[]byte) {
		for _, f := range frames {
			batch = append(batch, tun.Frame{Data: f})
		}
	}
	for i := range overloadFlood {
		src := [4]byte{77, 0, 0, 1}
		binary.BigEndian.PutUint16(src[1:], uint16(i))
		d := packettest.UDP(netip.AddrPortFrom(netip.AddrFrom4(src), 1000), server4, packettest.Body(2000))
		add(d.Fragment(0, d.Payload[:1448], true))
	}
	add(packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)...)
	add(packettest.UDP(client4, server4, nil).Frame())
	return batch
}

// TestShedding has a lane that stays behind. From the second batch on, when that is certain,
// all but a few fragments of unknown sources are shed. The honest source, which had a datagram
// accepted before, loses none, and no whole packet is lost.
func TestShedding(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		t.Run(mode.String(), func(t *testing.T) {
			s := &script{left: overloadBatches, end: tun.ErrClosed, batch: overload(), behind: true}
			b := New(Config{Sides: sides(s, nil), Policy: acceptAll(), Mode: mode, Fragments: limits()})
			defer b.table.Close()
			_ = b.sides[verdict.Inside].directions[0].run()
			c := b.Counters(verdict.Inside)
			if want := uint64((overloadBatches - 1) * (overloadFlood - overloadTaken)); c.Dropped[verdict.FragmentShed] != want {
				t.Errorf("%d fragments shed, want %d", c.Dropped[verdict.FragmentShed], want)
			}
			const honest = 3 // frames per batch
			passed := overloadBatches * honest
			if mode == packet.ModeValidate {
				// First fragments are forwarded at once. Later ones with the same range are
				// duplicates.
				passed += overloadFlood
			}
			if s.written != passed {
				t.Errorf("%d frames passed, want %d; dropped: %v", s.written, passed, c.Dropped)
			}
		})
	}
}

// TestNothingIsShedInTime has a lane that catches up after each large batch.
func TestNothingIsShedInTime(t *testing.T) {
	s := &script{left: overloadBatches, end: tun.ErrClosed, batch: overload()}
	b, d := scripted(s)
	defer b.table.Close()
	_ = d.run()
	if c := b.Counters(verdict.Inside); c.Dropped[verdict.FragmentShed] != 0 {
		t.Errorf("%d fragments shed", c.Dropped[verdict.FragmentShed])
	}
}

// TestLanesKnowWhoHasCredit tells lanes which sources had datagrams accepted.
func TestLanesKnowWhoHasCredit(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		for name, f := range families {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				denied := packettest.UDP(f.client, netip.AddrPortFrom(f.server.Addr(), 54), packettest.Body(2000))
				denied.ID = 1
				s := &script{left: 1, end: tun.ErrClosed}
				for _, frame := range append(packettest.UDP(f.client, f.server, packettest.Body(2000)).Fragments(1448), denied.Fragments(1448)...) {
					s.batch = append(s.batch, tun.Frame{Data: frame})
				}
				b := New(Config{Sides: sides(s, nil), Policy: onlyPort53(), Mode: mode, Fragments: limits()})
				defer b.table.Close()
				_ = b.sides[verdict.Inside].directions[0].run()
				if len(s.credited) != 1 || s.credited[0] != f.client.Addr() {
					t.Errorf("%v have credit, want %v once", s.credited, f.client.Addr())
				}
			})
		}
	}
}
