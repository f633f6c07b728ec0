package reject_test

import (
	"bytes"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/reject"
	"fragwall/packet/verdict"
)

var (
	in4  = netip.AddrPortFrom(packettest.InsideIPv4, 1000)
	out4 = netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	in6  = netip.AddrPortFrom(packettest.InsideIPv6, 1000)
	out6 = netip.AddrPortFrom(packettest.OutsideIPv6, 53)
)

func both(t *testing.T, run func(t *testing.T, src, dst netip.AddrPort)) {
	t.Run("ipv4", func(t *testing.T) { run(t, in4, out4) })
	t.Run("ipv6", func(t *testing.T) { run(t, in6, out6) })
}

// alter overwrites bytes of a frame.
func alter(frame []byte, at int, with ...byte) []byte {
	copy(frame[at:], with)
	return frame
}

// answer returns the reply to a decoded frame, or nil if there is none.
func answer(frame []byte, p *packet.Parsed, mtu int) []byte {
	return reject.Append(nil, frame, &packet.View{Parsed: p, Body: frame[min(p.Upper, p.End):p.End], BodyLength: p.End - p.Upper}, mtu)
}

// replyTo returns the reply to a whole packet, or nil if there is none.
func replyTo(t *testing.T, frame []byte, mtu int) []byte {
	t.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatal(why)
	}
	reply := answer(frame, &p, mtu)
	if reply != nil {
		sound(t, reply)
	}
	return reply
}

// sound fails unless the lengths and checksums of a reply are right.
func sound(t *testing.T, reply []byte) {
	t.Helper()
	var p packet.Parsed
	if why := p.Decode(reply); why != verdict.Passed || p.End != len(reply) {
		t.Fatalf("%v, ends at %d of %d", why, p.End, len(reply))
	}
	upper, sum := reply[p.Upper:], uint16(0)
	if p.Protocol != packet.ProtocolICMP {
		sum = header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(p.Protocol),
			tcpip.AddrFromSlice(p.Src.AsSlice()), tcpip.AddrFromSlice(p.Dst.AsSlice()), uint16(len(upper)))
	}
	if checksum.Checksum(upper, sum) != 0xffff {
		t.Errorf("the checksum of % x is wrong", upper)
	}
}

// tcpSegment returns a segment with the given sequence numbers.
func tcpSegment(src, dst netip.AddrPort, flags header.TCPFlags, seq, ack uint32, data int) packettest.Datagram {
	d := packettest.TCP(src, dst, flags)
	h := header.TCP(d.Payload)
	h.SetSequenceNumber(seq)
	h.SetAckNumber(ack)
	d.Payload = append(d.Payload, make([]byte, data)...)
	return d
}

func TestRejectGolden(t *testing.T) {
	syn := tcpSegment(in4, out4, header.TCPFlagSyn, 0x01020304, 0, 0)
	syn.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 0x6005}, {TPID: 0x8100, TCI: 7}}
	snap := packettest.UDP(in4, out4, []byte("hi"))
	snap.Tags, snap.LLC = []packet.Tag{{TPID: 0x8100, TCI: 0xe000}}, packettest.SNAP
	tests := []struct {
		name  string
		frame []byte
		want  string
	}{
		{"UDP in LLC", snap.Frame(), `
			020000000001 020000000002
			8100 e000 0042            # the tag as it came, the length of the reply
			aaaa03 000000 0800
			45 00 003a 0000 4000 40 01 6ec1 c0000201 0a000001
			03 0d c910 00000000
			4500 001e 0000 0000 40 11 aecd 0a000001 c0000201
			03e8 0035 000a c751 6869
		`},
		{"SYN, in two VLANs", syn.Frame(), `
			020000000001 020000000002 # back to the sender
			88a8 6005 8100 0007 0800  # tags as they came
			45 00 0028 0000 4000 40 06 6ece c0000201 0a000001
			0035 03e8                 # ports swapped
			00000000 01020305         # sequence 0, acknowledges the SYN
			5014 0000 dbaa 0000       # RST ACK
		`},
		{"UDP", packettest.UDP(in4, out4, []byte("hi")).Frame(), `
			020000000001 020000000002 0800
			45 00 003a 0000 4000 40 01 6ec1 c0000201 0a000001
			03 0d c910 00000000       # administratively prohibited
			4500 001e 0000 0000 40 11 aecd 0a000001 c0000201
			03e8 0035 000a c751 6869  # the datagram, all of it
		`},
		{"UDP over IPv6", packettest.UDP(in6, out6, []byte("hi")).Frame(), `
			020000000001 020000000002 86dd
			60000000 003a 3a 40 20010db8000100000000000000000001 20010db8000000000000000000000001
			01 01 31e6 00000000
			60000000 000a 11 40 20010db8000000000000000000000001 20010db8000100000000000000000001
			03e8 0035 000a 37df 6869
		`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, want := replyTo(t, tt.frame, 1500), packettest.Hex(tt.want)
			if !bytes.Equal(got, want) {
				t.Errorf("got\n% x\nwant\n% x", got, want)
			}
		})
	}
}

func TestRejectTCP(t *testing.T) {
	both(t, func(t *testing.T, src, dst netip.AddrPort) {
		tests := []struct {
			name     string
			in       packettest.Datagram
			flags    header.TCPFlags
			seq, ack uint32
		}{
			{"SYN", tcpSegment(src, dst, header.TCPFlagSyn, 0xffffffff, 0, 0), header.TCPFlagRst | header.TCPFlagAck, 0, 0},
			{"SYN with data", tcpSegment(src, dst, header.TCPFlagSyn, 100, 0, 10), header.TCPFlagRst | header.TCPFlagAck, 0, 111},
			{"FIN", tcpSegment(src, dst, header.TCPFlagFin, 100, 0, 10), header.TCPFlagRst | header.TCPFlagAck, 0, 111},
			{"ACK", tcpSegment(src, dst, header.TCPFlagAck, 100, 777, 10), header.TCPFlagRst, 777, 0},
			{"SYN ACK", tcpSegment(src, dst, header.TCPFlagSyn|header.TCPFlagAck, 100, 777, 0), header.TCPFlagRst, 777, 0},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				reply := replyTo(t, tt.in.Frame(), 1500)
				var p packet.Parsed
				p.Decode(reply)
				h := header.TCP(reply[p.Upper:])
				if h.Flags() != tt.flags || h.SequenceNumber() != tt.seq || h.AckNumber() != tt.ack {
					t.Errorf("%v, sequence %d, acknowledges %d", h.Flags(), h.SequenceNumber(), h.AckNumber())
				}
				if p.Src != dst.Addr() || p.Dst != src.Addr() || p.SrcPort != dst.Port() || p.DstPort != src.Port() {
					t.Errorf("%+v", p)
				}
			})
		}
	})
}

// TestRejectQuotesNoMoreThanFits rejects a datagram that is longer than an error may be.
func TestRejectQuotesNoMoreThanFits(t *testing.T) {
	long := packettest.Body(1400)
	for _, tt := range []struct {
		name     string
		src, dst netip.AddrPort
		mtu      int
		want     int
	}{
		{"ipv4", in4, out4, 1500, 576}, {"ipv4, small MTU", in4, out4, 100, 100},
		{"ipv6", in6, out6, 1500, 1280}, {"ipv6, small MTU", in6, out6, 600, 600},
	} {
		frame := packettest.UDP(tt.src, tt.dst, long).Frame()
		reply := replyTo(t, frame, tt.mtu)
		if len(reply)-14 != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, len(reply)-14, tt.want)
		}
		var p packet.Parsed
		p.Decode(reply)
		if quoted := reply[p.Upper+8:]; !bytes.HasPrefix(frame[14:], quoted) {
			t.Errorf("%s: quotes % x", tt.name, quoted)
		}
	}
}

// TestNoReply has packets that must not be answered (RFC 1122 §3.2.2, RFC 4443 §2.4).
func TestNoReply(t *testing.T) {
	at := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	udp := func(src, dst string) []byte {
		return packettest.UDP(netip.AddrPortFrom(at(src), 1), netip.AddrPortFrom(at(dst), 2), nil).Frame()
	}
	icmp := func(f netip.AddrPort, to netip.AddrPort, protocol, kind uint8) []byte {
		return packettest.Datagram{Src: f.Addr(), Dst: to.Addr(), Protocol: protocol, Payload: []byte{kind, 0, 0, 0, 0, 0, 0, 0}}.Frame()
	}
	fragments := packettest.UDP(in4, out4, packettest.Body(64)).Fragments(32)
	fragments6 := packettest.UDP(in6, out6, packettest.Body(64)).Fragments(32)
	halfHeader := packettest.TCP(in4, out4, header.TCPFlagSyn)
	halfHeader.Payload = halfHeader.Payload[:12]
	longHeader := packettest.TCP(in4, out4, header.TCPFlagSyn)
	longHeader.Payload[12] = 0xf0
	shortHeader := packettest.TCP(in4, out4, header.TCPFlagSyn)
	shortHeader.Payload[12] = 0x40
	tests := map[string][]byte{
		"IPv4 group":              udp("10.0.0.1", "224.0.0.1"),
		"IPv6 group":              udp("2001:db8::1", "ff02::1"),
		"IPv4 broadcast":          udp("10.0.0.1", "255.255.255.255"),
		"reserved source":         udp("250.0.0.1", "10.0.0.1"),
		"unspecified IPv4 source": udp("0.0.0.0", "10.0.0.1"),
		"unspecified IPv6 source": udp("::", "2001:db8::1"),
		"group as source":         udp("ff02::1", "2001:db8::1"),
		"loopback source":         udp("127.0.0.1", "10.0.0.1"),
		"to an Ethernet group":    alter(udp("10.0.0.1", "10.0.0.2"), 0, 0x01),
		"to Ethernet broadcast":   alter(udp("10.0.0.1", "10.0.0.2"), 0, 255, 255, 255, 255, 255, 255),
		"from an Ethernet group":  alter(udp("10.0.0.1", "10.0.0.2"), 6, 0x03),
		"later fragment":          fragments[1],
		"later fragment of IPv6":  fragments6[1],
		"unreachable":             icmp(in4, out4, 1, 3),
		"redirect":                icmp(in4, out4, 1, 5),
		"time exceeded":           icmp(in4, out4, 1, 11),
		"packet too big":          icmp(in6, out6, 58, 2),
		"unknown error of IPv6":   icmp(in6, out6, 58, 127),
		"redirect of IPv6":        icmp(in6, out6, 58, 137),
		"RST":                     packettest.TCP(in4, out4, header.TCPFlagRst).Frame(),
		"RST ACK of IPv6":         packettest.TCP(in6, out6, header.TCPFlagRst|header.TCPFlagAck).Frame(),
		"half a TCP header":       halfHeader.Frame(),
		"TCP header too long":     longHeader.Frame(),
		"TCP header too short":    shortHeader.Frame(),
		"arp":                     packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28)),
	}
	for name, frame := range tests {
		t.Run(name, func(t *testing.T) {
			if reply := replyTo(t, frame, 1500); reply != nil {
				t.Errorf("% x", reply)
			}
		})
	}
	for name, frame := range map[string][]byte{
		"echo request":   icmp(in4, out4, 1, 8),
		"echo of IPv6":   icmp(in6, out6, 58, 128),
		"first fragment": fragments[0],
	} {
		if replyTo(t, frame, 1500) == nil {
			t.Errorf("%s: no reply", name)
		}
	}
}

// FuzzReject answers any frame that decodes. Each reply is valid, or there is none.
func FuzzReject(f *testing.F) {
	udp4, udp6 := packettest.UDP(in4, out4, packettest.Body(40)), packettest.UDP(in6, out6, packettest.Body(40))
	udp6.Tags, udp6.LLC = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}}, packettest.SNAP
	f.Add(udp4.Frame(), uint16(1500))
	f.Add(udp6.Frame(), uint16(1500))
	f.Add(udp4.Fragments(24)[0], uint16(1500))
	f.Add(udp6.Fragments(24)[0], uint16(1500))
	f.Add(packettest.TCP(in6, out6, header.TCPFlagSyn).Frame(), uint16(68))
	f.Fuzz(func(t *testing.T, frame []byte, mtu uint16) {
		var p packet.Parsed
		if p.Decode(frame) != verdict.Passed || p.Fragment.Offset > 0 {
			return
		}
		reply := answer(frame, &p, int(mtu))
		if reply == nil {
			return
		}
		sound(t, reply)
		if len(reply)-p.Network > max(int(mtu), 68) {
			t.Errorf("%d bytes for an MTU of %d", len(reply)-p.Network, mtu)
		}
	})
}
