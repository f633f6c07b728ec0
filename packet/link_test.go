package packet_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestLLC has frames with an 802.3 length before the given bytes. "IPv4" at the end stands for
// a datagram, "pad" for padding.
func TestLLC(t *testing.T) {
	ip := packettest.UDP(in4, out4, packettest.Body(20)).Frame()[14:]
	const ipv4 = "IPv4"
	for _, tt := range []struct {
		name, contents string
		length         int // 0: the right one
		kind           packet.Kind
		why            verdict.Reason
		tags           int
	}{
		{"IPv4", "aaaa03 000000 0800" + ipv4, 0, packet.IPv4, verdict.Passed, 0},
		{"IPv4, padded", "aaaa03 000000 0800" + ipv4 + "pad", 8 + len(ip), packet.IPv4, verdict.Passed, 0},
		{"IPv4 in a bridge tunnel", "aaaa03 0000f8 0800" + ipv4, 0, packet.IPv4, verdict.Passed, 0},
		{"IPv4 to a group, as a response, with the poll bit", "abab13 000000 0800" + ipv4, 0, packet.IPv4, verdict.Passed, 0},
		{"IPv4 without SNAP", "060603" + ipv4, 0, packet.IPv4, verdict.Passed, 0},
		{"ARP", "aaaa03 000000 0806 0001 0800 0604 0001", 0, packet.ARP, verdict.Passed, 0},
		{"VLAN tag", "aaaa03 000000 8100 000a 0800" + ipv4, 0, packet.IPv4, verdict.Passed, 1},
		{"three VLAN tags", "aaaa03 000000 8100 000a 8100 000b 8100 000c 0800" + ipv4, 0, packet.NonIP, verdict.VLANTooDeep, 2},
		{"tag cut off", "aaaa03 000000 8100 000a" + "pad", 10, packet.NonIP, verdict.EthernetTruncated, 0},
		{"IPv6 without a header", "aaaa03 000000 86dd", 0, packet.IPv6, verdict.IPv6Header, 0},
		{"IPX", "aaaa03 000000 8137 ffff", 0, packet.NonIP, verdict.Passed, 0},
		{"length of 0", "aaaa03 000000 0800" + ipv4, -1, packet.NonIP, verdict.LLCHeader, 0},
		{"length without SNAP", "aaaa03 000000 0800" + ipv4, 7, packet.NonIP, verdict.LLCHeader, 0},
		{"length beyond the frame", "aaaa03 000000 0800" + ipv4, 9 + len(ip), packet.NonIP, verdict.LLCHeader, 0},
		{"undefined length", "aaaa03 000000 0800" + ipv4, 0x5ff, packet.NonIP, verdict.LLCHeader, 0},
		{"packet beyond the length", "aaaa03 000000 0800" + ipv4, 7 + len(ip), packet.IPv4, verdict.IPv4Length, 0},
		{"LLC in LLC", "aaaa03 000000 8100 000a 0024 aaaa03 000000 0800" + ipv4, 0, packet.NonIP, verdict.LLCHeader, 1},
		{"spanning tree", "424203 0000 00 00" + "pad", 38, packet.NonIP, verdict.Passed, 0},
		{"spanning tree of Cisco", "aaaa03 00000c 010b 0000" + "pad", 50, packet.NonIP, verdict.Passed, 0},
		{"EtherType of another organization", "aaaa03 00000c 0800" + ipv4, 0, packet.NonIP, verdict.Passed, 0},
		{"IPX without LLC", "ffff" + ipv4, 0, packet.NonIP, verdict.Passed, 0},
		{"information frame of a connection", "aaaa00 00 000000 0800" + ipv4, 0, packet.NonIP, verdict.Passed, 0},
		{"XID", "aaaaaf 000000 0800" + ipv4, 0, packet.NonIP, verdict.Passed, 0},
		{"SNAP cut off", "aaaa03 000000", 0, packet.NonIP, verdict.Passed, 0},
		{"nothing", "", 0, packet.NonIP, verdict.Passed, 0},
	} {
		contents := packettest.Hex(strings.NewReplacer(ipv4, fmt.Sprintf("%x", ip), "pad", strings.Repeat("00", 46)).Replace(tt.contents))
		length := tt.length
		switch length {
		case 0:
			length = len(contents)
		case -1:
			length = 0
		}
		for _, outer := range [][]packet.Tag{nil, {{TPID: 0x88a8, TCI: 5}}} {
			if len(outer)+tt.tags > 2 && tt.why == verdict.VLANTooDeep {
				continue // fails at an outer tag
			}
			t.Run(fmt.Sprintf("%s, inside %d tags", tt.name, len(outer)), func(t *testing.T) {
				frame := packettest.Datagram{Tags: outer}.Ethernet(uint16(length), contents)
				var p packet.Parsed
				why := p.Decode(frame)
				if why != tt.why || p.Kind != tt.kind || int(p.TagCount) != len(outer)+tt.tags {
					t.Fatalf("%v, kind %d, %d tags; want %v, %d, %d", why, p.Kind, p.TagCount, tt.why, tt.kind, len(outer)+tt.tags)
				}
				if p.Kind == packet.IPv4 && why == verdict.Passed && (p.SrcPort != in4.Port() || p.End != p.Network+len(ip)) {
					t.Errorf("%+v", p)
				}
			})
		}
	}
}

// TestSetLength makes a frame with another packet after a link layer.
func TestSetLength(t *testing.T) {
	d := packettest.UDP(in4, out4, packettest.Body(20))
	d.Tags, d.LLC = []packet.Tag{{TPID: 0x8100, TCI: 1}}, append(packettest.SNAP, 0x81, 0, 0, 2)
	frame := d.Frame()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed || p.PacketMTU(1500) != 1488 || p.PacketMTU(9000) != 1488 || p.PacketMTU(1000) != 988 {
		t.Fatalf("%v, %d of 1500", why, p.PacketMTU(1500))
	}
	frame = append(frame, 1, 2, 3)
	p.SetLength(frame)
	if n := int(binary.BigEndian.Uint16(frame[16:])); n != len(frame)-18 {
		t.Errorf("length %d in a frame of %d bytes", n, len(frame))
	}
}
