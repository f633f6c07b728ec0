package main

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

// BenchmarkFlows lists a million flows of a box in the same process, over its control socket.
func BenchmarkFlows(b *testing.B) {
	box, _ := startFlows(b, acceptInside)
	frame := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.1:53"), packettest.Body(10)).Frame()
	p := new(packet.Parsed)
	p.Decode(frame)
	v := &packet.View{Parsed: p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}
	const flows = 1_000_000
	for i := range flows {
		p.Src = netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})
		box.Policy().Judge(v, box.Elapsed)
	}
	for name, arguments := range map[string][]string{
		"table": nil, "json": {"--json"}, "count": {"--count"}, "top": {"--sort", "bytes", "-n", "10"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var errors bytes.Buffer
				if code := execute(append([]string{"flows", "--socket", "s.sock"}, arguments...), io.Discard, &errors); code != 0 {
					b.Fatalf("exit %d: %s", code, &errors)
				}
			}
		})
	}
}
