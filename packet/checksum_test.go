package packet_test

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestChecksumValid flips each bit that a checksum covers.
func TestChecksumValid(t *testing.T) {
	in4, out4 := netip.AddrPortFrom(packettest.InsideIPv4, 1000), netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	in6, out6 := netip.AddrPortFrom(packettest.InsideIPv6, 1000), netip.AddrPortFrom(packettest.OutsideIPv6, 53)
	payload := func(protocol uint8, text string) packettest.Datagram {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return packettest.Datagram{Src: in4.Addr(), Dst: out4.Addr(), Protocol: protocol, Payload: b}
	}
	const sack = "03000010" + "0000000100000400" + "00000000"
	tests := []struct {
		name     string
		datagram packettest.Datagram
	}{
		{"udp over ipv4", packettest.UDP(in4, out4, packettest.Body(33))},
		{"udp over ipv6", packettest.UDP(in6, out6, packettest.Body(33))},
		{"tcp over ipv4", packettest.TCP(in4, out4, 2)},
		{"tcp over ipv6", packettest.TCP(in6, out6, 2)},
		{"icmp", payload(packet.ProtocolICMP, "0800f7fd00010001")},
		{"sctp", payload(packet.ProtocolSCTP, "50e7000700000001"+crc32c("50e7000700000001"+"00000000"+sack)+sack)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frame := tt.datagram.Frame()
			var p packet.Parsed
			if why := p.Decode(frame); why != verdict.Passed {
				t.Fatal(why)
			}
			v := &packet.View{Parsed: &p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}
			if !v.ChecksumValid() {
				t.Fatal("a right checksum is refused")
			}
			for i := range v.Body {
				if tt.name[:3] == "udp" && (i == 4 || i == 5) {
					continue // the UDP length, see below
				}
				for bit := range 8 {
					v.Body[i] ^= 1 << bit
					if v.ChecksumValid() {
						t.Errorf("byte %d, bit %d: accepted", i, bit)
					}
					v.Verified = true
					if !v.ChecksumValid() {
						t.Error("a checksum that the NIC validated is refused")
					}
					v.Verified = false
					v.Body[i] ^= 1 << bit
				}
			}
		})
	}
	// Bytes after a UDP datagram in its packet do not belong to it (RFC 9868).
	d := packettest.UDP(in4, out4, packettest.Body(8))
	d.Payload = append(d.Payload, 1, 2, 3)
	frame := d.Frame()
	var p packet.Parsed
	p.Decode(frame)
	v := &packet.View{Parsed: &p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}
	if !v.ChecksumValid() {
		t.Error("bytes after a UDP datagram count")
	}
	v.Body[6], v.Body[7] = 0, 0
	if !v.ChecksumValid() {
		t.Error("a UDP datagram without a checksum is refused")
	}
	if v.Body = v.Body[:len(v.Body)-1]; !v.ChecksumValid() {
		t.Error("a partial payload is refused")
	}
}

// crc32c returns the checksum of an SCTP packet, computed bit by bit (RFC 9260 appendix A).
// Both are in hexadecimal.
func crc32c(text string) string {
	b, _ := hex.DecodeString(text)
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78*(crc&1)
		}
	}
	return hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, ^crc))
}
