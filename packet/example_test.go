package packet_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// This frame in VLAN 10 has a UDP datagram. The caller keeps the Parsed and reuses it for the
// next frame.
func ExampleParsed_Decode() {
	frame, err := hex.DecodeString("" +
		"020000000002" + "020000000001" + // Ethernet: destination, source
		"8100" + "000a" + "0800" + // 802.1Q: VLAN 10; IPv4
		"45000020" + "00010000" + "4011" + "aeca" + "0a000001" + "c0000201" + // IPv4: 10.0.0.1 to 192.0.2.1
		"9c40" + "0035" + "000c" + "0000" + // UDP: port 40000 to 53
		"74657374") // payload
	if err != nil {
		panic(err)
	}
	var p packet.Parsed
	if reason := p.Decode(frame); reason != verdict.Passed {
		fmt.Println("drop:", reason)
		return
	}
	fmt.Println(p.Protocol == packet.ProtocolUDP, p.Src, p.SrcPort, p.Dst, p.DstPort, "VLAN", p.VLANs().ID())
	fmt.Printf("payload %q\n", frame[p.Upper+8:p.End])

	frame[24]++ // the TTL, which the header checksum covers
	fmt.Println("drop:", p.Decode(frame))
	// Output:
	// true 10.0.0.1 40000 192.0.2.1 53 VLAN 10
	// payload "test"
	// drop: ipv4_checksum
}

// Only the first fragment of a datagram has ports.
func ExampleParsed_Decode_fragments() {
	src, dst := netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8::53]:53")
	datagram := packettest.UDP(src, dst, make([]byte, 3000))
	datagram.ID = 7
	var p packet.Parsed
	for _, frame := range datagram.Fragments(1232) {
		if reason := p.Decode(frame); reason != verdict.Passed {
			fmt.Println("drop:", reason)
			continue
		}
		f := p.Fragment
		fmt.Printf("id %d: bytes %d to %d, more %t, ports %t\n", f.ID, f.Offset, f.Offset+p.End-f.Payload-1, f.More, p.Transport == packet.Ports)
	}
	// Output:
	// id 7: bytes 0 to 1231, more true, ports true
	// id 7: bytes 1232 to 2463, more true, ports false
	// id 7: bytes 2464 to 3007, more false, ports false
}

// The VLAN of a frame is that of its first tag with an identifier other than 0.
func ExampleParsed_VLANs() {
	datagram := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), nil)
	for _, tags := range [][]packet.Tag{
		nil,
		{{TPID: 0x8100, TCI: 5<<13 | 10}}, // priority 5, VLAN 10
		{{TPID: 0x8100, TCI: 5 << 13}},    // a priority tag: no VLAN
		{{TPID: 0x88a8, TCI: 100}, {TPID: 0x8100, TCI: 10}}, // QinQ
	} {
		datagram.Tags = tags
		var p packet.Parsed
		p.Decode(datagram.Frame())
		v := p.VLANs()
		fmt.Println(v.Len(), v.ID())
	}
	// Output:
	// 0 0
	// 1 10
	// 0 0
	// 2 100
}
