package frametext

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/tun/capture"
)

var (
	client4 = netip.MustParseAddrPort("10.0.0.1:40000")
	server4 = netip.MustParseAddrPort("192.0.2.1:40001")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:40000")
	server6 = netip.MustParseAddrPort("[2001:db8:1::1]:40001")
)

// segment returns a TCP segment with options and data.
func segment(src, dst netip.AddrPort, flags header.TCPFlags, options, data []byte) packettest.Datagram {
	d := packettest.TCP(src, dst, flags)
	binary.BigEndian.PutUint32(d.Payload[4:], 4294967290)
	binary.BigEndian.PutUint32(d.Payload[8:], 77)
	d.Payload[12] = byte(20+len(options)) / 4 << 4
	binary.BigEndian.PutUint16(d.Payload[18:], 9)
	d.Payload = append(append(d.Payload, options...), data...)
	return d
}

// icmp returns an ICMP or ICMPv6 message from the server.
func icmp(dst netip.AddrPort, message ...byte) packettest.Datagram {
	if dst.Addr().Is4() {
		return packettest.Datagram{Src: server4.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolICMP, Payload: message}
	}
	return packettest.Datagram{Src: server6.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolICMPv6, Payload: message}
}

// about returns an ICMP error that quotes a datagram.
func about(d packettest.Datagram, kind, code byte, rest uint32) packettest.Datagram {
	message := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	return icmp(netip.AddrPortFrom(d.Src, 0), append(message, d.Frame()[packet.SizeEthernet:]...)...)
}

// frames returns the frames whose descriptions are compared with tcpdump's.
func frames() [][]byte {
	udp4, udp6 := packettest.UDP(client4, server4, packettest.Body(22)), packettest.UDP(client6, server6, packettest.Body(22))
	cut := packettest.UDP(client4, server4, packettest.Body(22))
	binary.BigEndian.PutUint16(cut.Payload[4:], 100)
	syn := []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}
	sack := []byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0, 30}
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1}, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2)
	reply := append([]byte{}, arp...)
	reply[7] = 2
	tagged := udp4
	tagged.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}}
	solicit := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, server6.Addr().AsSlice()...)
	advert := append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, server6.Addr().AsSlice()...)
	tcp4 := packettest.TCP(client4, server4, header.TCPFlagSyn)

	all := [][]byte{
		udp4.Frame(), udp6.Frame(), cut.Frame(), append(udp4.Frame(), make([]byte, 10)...),
		segment(client4, server4, header.TCPFlagSyn, syn, nil).Frame(),
		segment(server4, client4, header.TCPFlagSyn|header.TCPFlagAck, syn[:4], nil).Frame(),
		segment(client4, server4, header.TCPFlagAck, nil, nil).Frame(),
		segment(client4, server4, header.TCPFlagAck|header.TCPFlagPsh, nil, packettest.Body(100)).Frame(),
		segment(client6, server6, header.TCPFlagAck, sack, packettest.Body(5)).Frame(),
		segment(client6, server6, header.TCPFlagFin|header.TCPFlagAck|header.TCPFlagUrg, nil, nil).Frame(),
		segment(client6, server6, header.TCPFlagRst, nil, nil).Frame(),
		segment(client6, server6, header.TCPFlagSyn|0xc0, nil, nil).Frame(),
		segment(client4, server4, 0, nil, nil).Frame(),
		icmp(client4, 8, 0, 0, 0, 0, 7, 0, 9, 1, 2).Frame(), icmp(client4, 0, 0, 0, 0, 0, 7, 0, 9).Frame(),
		icmp(client6, 128, 0, 0, 0, 0, 7, 0, 9, 1, 2).Frame(), icmp(client6, 129, 0, 0, 0, 0, 7, 0, 9).Frame(),
		about(udp4, 3, 0, 0).Frame(), about(udp4, 3, 1, 0).Frame(), about(udp4, 3, 2, 0).Frame(), about(udp4, 3, 3, 0).Frame(), about(tcp4, 3, 3, 0).Frame(),
		about(udp4, 3, 4, 1400).Frame(), about(udp4, 3, 13, 0).Frame(), about(udp4, 11, 0, 0).Frame(), about(udp4, 11, 1, 0).Frame(),
		about(udp6, 1, 0, 0).Frame(), about(udp6, 1, 1, 0).Frame(), about(udp6, 1, 4, 0).Frame(), about(udp6, 2, 0, 1280).Frame(), about(udp6, 3, 0, 0).Frame(),
		icmp(client6, solicit...).Frame(), icmp(client6, advert...).Frame(),
		packettest.Datagram{}.Ethernet(packet.EtherTypeARP, arp), packettest.Datagram{}.Ethernet(packet.EtherTypeARP, reply),
		tagged.Frame(),
	}
	for _, d := range []packettest.Datagram{packettest.UDP(client4, server4, packettest.Body(3000)), packettest.UDP(client6, server6, packettest.Body(3000)),
		segment(client4, server4, header.TCPFlagAck, nil, packettest.Body(2000)), segment(client6, server6, header.TCPFlagAck, nil, packettest.Body(2000))} {
		all = append(all, d.Fragments(1440)...)
	}
	return all
}

// TestAgainstTcpdump compares the descriptions of frames with the output of tcpdump.
func TestAgainstTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var file bytes.Buffer
	w, err := capture.NewPcap(&file, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames() {
		if err := w.Write(capture.Frame{Data: f, Length: len(f), Time: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("tcpdump", "-n", "-S", "-t", "-r", "-")
	c.Stdin = &file
	output, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(want) != len(frames()) {
		t.Fatalf("%d lines of %d frames", len(want), len(frames()))
	}
	for i, f := range frames() {
		got := strings.TrimPrefix(string(Append(nil, f)), "vlan 10, ") // tcpdump shows it only with -e
		if want := strings.ReplaceAll(want[i], ",  ", ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// FuzzAppend describes arbitrary frames.
func FuzzAppend(f *testing.F) {
	for _, frame := range frames() {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if text := Append(nil, frame); len(text) == 0 || bytes.ContainsAny(text, "\n\x1b") {
			t.Errorf("%q", text)
		}
	})
}
