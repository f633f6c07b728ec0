package wire

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

func BenchmarkWholePacket(b *testing.B) {
	frame := tun.Frame{Data: packettest.UDP(client4, server4, packettest.Body(64)).Frame()}
	bump, d := scripted(&script{})
	defer bump.table.Close()
	b.ReportAllocs()
	for b.Loop() {
		d.take(&frame)
		if len(d.batch.out) == 64 {
			d.flush()
		}
	}
}

// BenchmarkRules forwards packets of 64 flows, each by its own rule, from decoding to writing,
// with an increasing number of rules.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}) }
			p := &filter.Policy{Rules: make([]filter.Rule, n)}
			for i := range p.Rules {
				p.Rules[i] = filter.Rule{Action: verdict.Accept, Protocols: filter.NewSet(filter.Range[uint8]{Lo: 17, Hi: 17}),
					Dst: filter.NewAddrSet(filter.Range[netip.Addr]{Lo: host(i), Hi: host(i)})}
			}
			var frames [64]tun.Frame
			for i := range frames {
				to := netip.AddrPortFrom(host(i*7919%n), 53)
				frames[i] = tun.Frame{Data: packettest.UDP(client4, to, packettest.Body(64)).Frame()}
			}
			bump := New(Config{Sides: sides(&script{}, nil), Policy: p})
			d := bump.sides[verdict.Inside].directions[0]
			i := 0
			for b.Loop() {
				if d.take(&frames[i%len(frames)]); len(d.batch.out) == len(frames) {
					d.flush()
				}
				i++
			}
		})
	}
}

// BenchmarkFragments forwards datagrams of 8,000 bytes in 6 fragments, from decoding to
// writing, in every mode that accepts them. The unit is a datagram.
func BenchmarkFragments(b *testing.B) {
	for _, c := range []struct {
		mode packet.Mode
		emit packet.Emit
	}{
		{packet.ModeReassemble, packet.EmitOriginal},
		{packet.ModeReassemble, packet.EmitWhole},
		{packet.ModeValidate, packet.EmitOriginal},
		{packet.ModeFirstAcceptRest, packet.EmitOriginal},
	} {
		for _, hosts := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
			name := fmt.Sprintf("%s %s", c.mode, c.emit)
			if c.mode != packet.ModeReassemble {
				name = c.mode.String()
			}
			b.Run(fmt.Sprintf("%s to %s", name, hosts[1].Addr()), func(b *testing.B) {
				var frames []tun.Frame
				for _, f := range packettest.UDP(hosts[0], hosts[1], packettest.Body(8000)).Fragments(1448) {
					frames = append(frames, tun.Frame{Data: f})
				}
				bump := New(Config{Sides: sides(&script{}, nil), Policy: acceptAll(), Mode: c.mode, Emit: c.emit, Fragments: limits()})
				if bump.table != nil {
					defer bump.table.Close()
				}
				d := bump.sides[verdict.Inside].directions[0]
				b.ReportAllocs()
				for b.Loop() {
					for i := range frames {
						d.take(&frames[i])
					}
					d.flush()
				}
				if n := bump.Counters(verdict.Inside).Forwarded; n != uint64(b.N*len(frames)) {
					b.Fatalf("%d of %d frames passed", n, b.N*len(frames))
				}
			})
		}
	}
}
