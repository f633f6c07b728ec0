package packet_test

import (
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// BenchmarkDecode decodes one frame of each kind.
func BenchmarkDecode(b *testing.B) {
	port := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 53) }
	udp4 := packettest.UDP(port(packettest.InsideIPv4), port(packettest.OutsideIPv4), packettest.Body(2000))
	udp6 := packettest.UDP(port(packettest.InsideIPv6), port(packettest.OutsideIPv6), packettest.Body(2000))
	tagged := udp4
	tagged.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}}
	chain := udp6
	chain.FirstBefore, chain.Before = 0, []byte{60, 0, 1, 4, 0, 0, 0, 0, packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"ipv4", udp4.Frame()},
		{"ipv6", udp6.Frame()},
		{"ipv4 in two tags", tagged.Frame()},
		{"ipv6 with two extension headers", chain.Frame()},
		{"ipv4 fragment", udp4.Fragments(1480)[1]},
		{"ipv6 fragment", udp6.Fragments(1448)[1]},
		{"arp", packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28))},
	} {
		b.Run(c.name, func(b *testing.B) {
			var p packet.Parsed
			b.ReportAllocs()
			for b.Loop() {
				if why := p.Decode(c.frame); why != verdict.Passed {
					b.Fatal(why)
				}
			}
		})
	}
}
