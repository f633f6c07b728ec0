package wire

import (
	"fmt"
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// BenchmarkFragments has datagrams of 8,000 bytes in 6 fragments pass, from
// decoding to writing, in every mode that lets them. Its unit is a datagram.
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
				d := bump.sides[verdict.Inside].lanes[0]
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
