package wire

import (
	"encoding/binary"
	"testing"
	"testing/synctest"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// segments returns a frame that stands for TCP or UDP packets of 1,000 bytes each.
func segments(d packettest.Datagram, gso uint8) tun.Frame {
	if d.Protocol == packet.ProtocolTCP {
		d.Payload = append(d.Payload, packettest.Body(10000)...)
	}
	data := d.Frame()
	o := tun.Offload{Flags: tun.NeedsChecksum, GSO: gso, SegmentSize: 1000, ChecksumStart: uint16(len(data) - len(d.Payload)), ChecksumOffset: udpChecksum}
	if d.Protocol == packet.ProtocolTCP {
		o.ChecksumOffset = tcpChecksum
	}
	return tun.Frame{Data: data, Offload: o}
}

func TestCheckOffload(t *testing.T) {
	tcp4 := segments(packettest.TCP(client4, server4, 16), tun.GSOTCPv4)
	tcp6 := segments(packettest.TCP(client6, server6, 16), tun.GSOTCPv6)
	udp4 := segments(packettest.UDP(client4, server4, packettest.Body(5000)), tun.GSOUDP)
	udp6 := segments(packettest.UDP(client6, server6, packettest.Body(5000)), tun.GSOUDP)
	icmp := segments(packettest.Datagram{Src: client6.Addr(), Dst: server6.Addr(), Protocol: packet.ProtocolICMPv6, Payload: make([]byte, 64)}, tun.GSONone)
	gre := segments(packettest.Datagram{Src: client4.Addr(), Dst: server4.Addr(), Protocol: packet.ProtocolGRE, Payload: make([]byte, 64)}, tun.GSONone)
	arp := tun.Frame{Data: packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28)), Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 14, ChecksumOffset: 6}}
	bpdu := tun.Frame{Data: packettest.Datagram{LLC: []byte{0xaa, 0xaa, 3, 0, 0, 0xc}}.Ethernet(0x010b, make([]byte, 40)),
		Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 17, ChecksumOffset: 2}}
	inLLC := packettest.UDP(client4, server4, packettest.Body(1200))
	inLLC.LLC = packettest.SNAP
	llc := segments(inLLC, tun.GSOUDP)
	fragments := packettest.UDP(client4, server4, packettest.Body(4000)).Fragments(1448)
	first := tun.Frame{Data: fragments[0], Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 34, ChecksumOffset: udpChecksum}}
	fragment := tun.Frame{Data: fragments[1], Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 34, ChecksumOffset: 0}}

	const unsound = -1
	tests := []struct {
		name   string
		frame  tun.Frame
		change func(*tun.Offload)
		length int // of the longest packet in bytes, or unsound
	}{
		{"tcp over ipv4", tcp4, nil, 20 + 20 + 1000},
		{"tcp over ipv6", tcp6, nil, 40 + 20 + 1000},
		{"with congestion notification", tcp4, func(o *tun.Offload) { o.GSO |= tun.GSOECN }, 20 + 20 + 1000},
		{"udp over ipv4", udp4, nil, 20 + 8 + 1000},
		{"udp over ipv6", udp6, nil, 40 + 8 + 1000},
		{"fewer bytes than a segment", udp4, func(o *tun.Offload) { o.SegmentSize = 9000 }, 20 + 8 + 5000},
		{"only a checksum", udp4, func(o *tun.Offload) { o.GSO = tun.GSONone }, 20 + 8 + 5000},
		{"checksum done", tcp4, func(o *tun.Offload) { o.Flags, o.ChecksumStart, o.ChecksumOffset = tun.DataValid, 0, 0 }, 20 + 20 + 1000},
		{"any header length", tcp4, func(o *tun.Offload) { o.HeaderLength = 65535 }, 20 + 20 + 1000},
		{"inside a tunnel over udp", udp4, func(o *tun.Offload) { o.GSO = tun.GSONone; o.ChecksumStart += 36; o.ChecksumOffset = tcpChecksum }, 20 + 8 + 5000},
		{"inside a tunnel", gre, func(o *tun.Offload) { o.ChecksumStart += 24 }, 20 + 64},
		{"icmpv6", icmp, func(o *tun.Offload) { o.ChecksumOffset = 2 }, 40 + 64},
		{"arp", arp, nil, 28},
		{"first fragment", first, nil, 20 + 1448},
		{"fragment", fragment, nil, 20 + 1448},

		{"in llc", llc, func(o *tun.Offload) { o.GSO = tun.GSONone }, 20 + 8 + 1200},
		{"in llc in segments", llc, nil, unsound},
		{"checksum in the llc header", bpdu, nil, unsound},
		{"ipv6 as ipv4", tcp6, func(o *tun.Offload) { o.GSO = tun.GSOTCPv4 }, unsound},
		{"ipv4 as ipv6", tcp4, func(o *tun.Offload) { o.GSO = tun.GSOTCPv6 }, unsound},
		{"udp as tcp", udp4, func(o *tun.Offload) { o.GSO = tun.GSOTCPv4; o.ChecksumOffset = tcpChecksum }, unsound},
		{"tcp as udp", tcp4, func(o *tun.Offload) { o.GSO = tun.GSOUDP; o.ChecksumOffset = udpChecksum }, unsound},
		{"udp with congestion notification", udp4, func(o *tun.Offload) { o.GSO |= tun.GSOECN }, unsound},
		{"ip fragmentation", udp4, func(o *tun.Offload) { o.GSO = 3 }, unsound},
		{"unknown kind", tcp4, func(o *tun.Offload) { o.GSO = 9 }, unsound},
		{"icmp in segments", icmp, func(o *tun.Offload) { o.GSO = tun.GSOUDP }, unsound},
		{"arp in segments", arp, func(o *tun.Offload) { o.GSO = tun.GSOTCPv4 }, unsound},
		{"fragment in segments", fragment, func(o *tun.Offload) { o.GSO, o.SegmentSize = tun.GSOUDP, 100 }, unsound},
		{"segments of 0 bytes", tcp4, func(o *tun.Offload) { o.SegmentSize = 0 }, unsound},
		{"checksum in the ports", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumOffset = tun.GSONone, 2 }, unsound},
		{"checksum in the udp length", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumOffset = tun.GSONone, 4 }, unsound},
		{"checksum in the sequence number", tcp4, func(o *tun.Offload) { o.GSO, o.ChecksumOffset = tun.GSONone, 4 }, unsound},
		{"checksum in the tcp flags", tcp4, func(o *tun.Offload) { o.GSO, o.ChecksumOffset = tun.GSONone, 13 }, unsound},
		{"checksum of a part of the segment", tcp4, func(o *tun.Offload) { o.GSO = tun.GSONone; o.ChecksumStart += 4; o.ChecksumOffset = 12 }, unsound},
		{"checksum in the first fragment's ports", first, func(o *tun.Offload) { o.ChecksumOffset = 2 }, unsound},
		{"checksum in the icmp type", icmp, func(o *tun.Offload) { o.ChecksumOffset = 0 }, unsound},
		{"checksum in the addresses", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumStart = tun.GSONone, 26 }, unsound},
		{"checksum starts at the ip header", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumStart, o.ChecksumOffset = tun.GSONone, 14, 26 }, unsound},
		{"checksum beyond the packet", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumOffset = tun.GSONone, 5007 }, unsound},
		{"checksum beyond all", udp4, func(o *tun.Offload) { o.GSO, o.ChecksumStart, o.ChecksumOffset = tun.GSONone, 65535, 65535 }, unsound},
		{"checksum in the tags", arp, func(o *tun.Offload) { o.ChecksumStart = 6 }, unsound},
		{"checksum in the fragment's header", fragment, func(o *tun.Offload) { o.ChecksumStart = 33 }, unsound},
		{"segments with another checksum start", tcp4, func(o *tun.Offload) { o.ChecksumStart += 4 }, unsound},
		{"segments with another checksum offset", tcp4, func(o *tun.Offload) { o.ChecksumOffset = 14 }, unsound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tun.Frame{Data: append([]byte{}, tt.frame.Data...), Offload: tt.frame.Offload}
			if tt.change != nil {
				tt.change(&f.Offload)
			}
			checkLength(t, f, tt.length)
		})
	}
	t.Run("padded segments", func(t *testing.T) {
		tcp4.Data = append(append([]byte{}, tcp4.Data...), 0, 0)
		checkLength(t, tcp4, unsound)
	})
	t.Run("tcp header shorter than it can be", func(t *testing.T) {
		tcp6.Data[14+40+12] = 4 << 4
		checkLength(t, tcp6, unsound)
	})
	t.Run("tcp header longer than the packet", func(t *testing.T) {
		short := packettest.TCP(client4, server4, 16)
		short.Payload[12] = 15 << 4
		checkLength(t, tun.Frame{Data: short.Frame(), Offload: tun.Offload{GSO: tun.GSOTCPv4, SegmentSize: 1}}, unsound)
	})
}

// checkLength compares the result of checkOffload. A negative length stands for an unsound
// Offload.
func checkLength(t *testing.T, f tun.Frame, want int) {
	t.Helper()
	var p packet.Parsed
	if why := p.Decode(f.Data); why != verdict.Passed {
		t.Fatal(why)
	}
	length, why := checkOffload(&f, &p)
	switch {
	case want < 0 && why != verdict.OffloadHeader:
		t.Errorf("%v, %d bytes", why, length)
	case want >= 0 && (why != verdict.Passed || length != want):
		t.Errorf("%v, %d bytes, want %d", why, length, want)
	}
}

// TestOffloadPassesUntouched sends segments that fit the egress MTU, segments that do not, and
// an Offload that contradicts the packet.
func TestOffloadPassesUntouched(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		fits := segments(packettest.TCP(client4, server4, 16), tun.GSOTCPv4)
		fits.Offload.SegmentSize = 1460
		long := segments(packettest.TCP(client4, server4, 16), tun.GSOTCPv4)
		long.Offload.SegmentSize = 1461
		lies := segments(packettest.TCP(client4, server4, 16), tun.GSOTCPv6)
		for _, f := range []tun.Frame{fits, long, lies} {
			b.ports[verdict.Inside].InjectFrame(f)
		}
		synctest.Wait()
		got, err := b.ports[verdict.Outside].Next(b.Context())
		if err != nil || string(got.Data) != string(fits.Data) || got.Offload != fits.Offload {
			b.Errorf("%v: %+v", err, got.Offload)
		}
		b.expect(verdict.Outside)
		b.counted(verdict.Inside, 3, 1, 0, map[verdict.Reason]uint64{verdict.ExceedsMTU: 1, verdict.OffloadHeader: 1})
	})
}

// TestFragmentsLeaveWithChecksum sends fragments one of which has its checksum left to the NIC.
// The table does not store offload metadata.
func TestFragmentsLeaveWithChecksum(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		frames := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)
		first := tun.Frame{Data: append([]byte{}, frames[0]...), Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 34, ChecksumOffset: udpChecksum}}
		b.ports[verdict.Inside].InjectFrame(first)
		b.ports[verdict.Inside].Inject(frames[1])
		if !first.CompleteChecksum() || binary.BigEndian.Uint16(first.Data[40:]) == binary.BigEndian.Uint16(frames[0][40:]) {
			b.Fatal("the checksum did not change")
		}
		synctest.Wait()
		b.expect(verdict.Outside, first.Data, frames[1])
	})
}
