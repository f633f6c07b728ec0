package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
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

func TestWholePacket(t *testing.T) {
	both(t, func(t *testing.T, src, dst netip.AddrPort) {
		for _, tags := range [][]packet.Tag{
			nil,
			{{TPID: 0x8100, TCI: 0x600a}},
			{{TPID: 0x88a8, TCI: 5}, {TPID: 0x8100, TCI: 7}},
			{{TPID: 0x8100, TCI: 5}, {TPID: 0x88a8, TCI: 7}},
		} {
			d := packettest.UDP(src, dst, packettest.Body(100))
			d.Tags = tags
			frame := d.Frame()
			var p packet.Parsed
			if why := p.Decode(append(frame, 0, 0, 0)); why != verdict.Passed {
				t.Fatalf("tags %v: dropped: %v", tags, why)
			}
			if p.Src != src.Addr() || p.Dst != dst.Addr() || p.Protocol != packet.ProtocolUDP ||
				p.Transport != packet.Ports || p.SrcPort != src.Port() || p.DstPort != dst.Port() {
				t.Errorf("5-tuple: %+v", p)
			}
			if p.End != len(frame) {
				t.Errorf("the packet ends at %d, want %d: padding does not belong to it", p.End, len(frame))
			}
			if p.Fragment.Present || p.Fragmented {
				t.Errorf("a whole packet is not a fragment: %+v", p)
			}
			if int(p.TagCount) != len(tags) {
				t.Fatalf("%d tags, want %d", p.TagCount, len(tags))
			}
			for i, tag := range tags {
				if p.Tags[i] != tag {
					t.Errorf("tag %d: %+v, want %+v", i, p.Tags[i], tag)
				}
			}
		}
	})
}

func TestFragments(t *testing.T) {
	both(t, func(t *testing.T, src, dst netip.AddrPort) {
		d := packettest.UDP(src, dst, packettest.Body(2000))
		d.ID = 77
		var p packet.Parsed
		for i, frame := range d.Fragments(1000) {
			if why := p.Decode(frame); why != verdict.Passed {
				t.Fatalf("fragment %d: dropped: %v", i, why)
			}
			want := packet.Fragment{
				Present: true, More: i < 2, ID: 77, Offset: i * 1000,
				Payload: p.Fragment.Payload, Headers: p.Fragment.Headers,
			}
			if src.Addr().Is6() {
				want.NextHeader = 14 + 6
			}
			if p.Fragment != want || !p.Fragmented {
				t.Errorf("fragment %d: %+v, want %+v", i, p.Fragment, want)
			}
			if got := frame[p.Fragment.Payload:p.End]; string(got) != string(d.Payload[i*1000:min(i*1000+1000, 2008)]) {
				t.Errorf("fragment %d: wrong payload offset", i)
			}
			if hasPorts := p.Transport == packet.Ports; hasPorts != (i == 0) {
				t.Errorf("fragment %d: transport %v", i, p.Transport)
			}
		}
	})
}

func TestAtomicFragmentIsWhole(t *testing.T) {
	d := packettest.UDP(in6, out6, packettest.Body(10))
	var p packet.Parsed
	if why := p.Decode(d.Fragment(0, d.Payload, false)); why != verdict.Passed {
		t.Fatalf("dropped: %v", why)
	}
	if p.Fragment.Present || p.Fragmented || p.Transport != packet.Ports {
		t.Errorf("%+v", p)
	}
}

// TestExtensionChain has every header type that the decoder walks, and those that end the
// chain.
func TestExtensionChain(t *testing.T) {
	const hopByHop, routing, destination, mobility, hip, shim6 = 0, 43, 60, 135, 139, 140
	d := packettest.UDP(in6, out6, nil)
	d.FirstBefore = hopByHop
	d.Before = concat(
		[]byte{routing, 0, 1, 4, 0, 0, 0, 0},     // hop-by-hop: PadN
		[]byte{destination, 2}, make([]byte, 22), // routing, 24 bytes
		[]byte{mobility, 0, 1, 4, 0, 0, 0, 0},                                         // destination options
		[]byte{hip, 0, 0, 0, 0, 0, 0, 0},                                              // mobility
		[]byte{shim6, 0, 0, 0, 0, 0, 0, 0},                                            // HIP
		[]byte{packet.ProtocolAH, 0, 0, 0, 0, 0, 0, 0},                                // Shim6
		[]byte{packet.ProtocolUDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 12), // AH: (4+2)*4 = 24 bytes
	)
	var p packet.Parsed
	if why := p.Decode(d.Frame()); why != verdict.Passed {
		t.Fatalf("dropped: %v", why)
	}
	if p.Protocol != packet.ProtocolUDP || p.DstPort != 53 {
		t.Errorf("%+v", p)
	}

	d.Protocol = packet.ProtocolESP
	d.FirstBefore, d.Before = destination, []byte{packet.ProtocolESP, 0, 1, 4, 0, 0, 0, 0}
	if why := p.Decode(d.Frame()); why != verdict.Passed || p.Protocol != packet.ProtocolESP || p.Transport != packet.NoFields {
		t.Errorf("ESP must end the chain: %v, %+v", why, p)
	}
}

func TestDrops(t *testing.T) {
	udp4 := packettest.UDP(in4, out4, packettest.Body(64))
	udp6 := packettest.UDP(in6, out6, packettest.Body(64))
	nd := packettest.Datagram{
		Src: in6.Addr(), Dst: out6.Addr(), TTL: 255,
		Protocol: packet.ProtocolICMPv6, Payload: append([]byte{135, 0}, make([]byte, 22)...),
	}
	chain := func(first uint8, headers ...byte) packettest.Datagram {
		d := udp6
		d.FirstBefore, d.Before = first, headers
		return d
	}
	options := func(b ...byte) []byte {
		d := udp4
		d.Options = b
		return d.Frame()
	}
	fragmentHeaders := func() []byte {
		d := udp6
		d.FirstAfter, d.After = 44, []byte{17, 0, 0, 1, 0, 0, 0, 9}
		return d.Fragment(0, d.Fragmentable(), true)
	}
	tests := []struct {
		name  string
		frame []byte
		want  verdict.Reason
	}{
		{"empty", nil, verdict.EthernetTruncated},
		{"13 bytes", make([]byte, 13), verdict.EthernetTruncated},
		{"tag cut off", udp4.Ethernet(0x8100, []byte{0, 1, 8}), verdict.EthernetTruncated},
		{"three tags", udp4.Ethernet(0x8100, []byte{0, 1, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 1, 8, 0}), verdict.VLANTooDeep},

		{"version 6 in an IPv4 frame", alter(udp4.Frame(), 14, 0x65), verdict.IPv4Header},
		{"IHL 4", alter(udp4.Frame(), 14, 0x44), verdict.IPv4Header},
		{"header cut off", udp4.Frame()[:14+19], verdict.IPv4Header},
		{"IHL beyond the frame", alter(udp4.Frame()[:14+20], 14, 0x46), verdict.IPv4Header},
		{"total length less than the header", alter(udp4.Frame(), 16, 0, 19), verdict.IPv4Length},
		{"total length beyond the frame", alter(udp4.Frame(), 16, 0xff, 0xff), verdict.IPv4Length},
		{"option without a length", options(1, 1, 1, 7), verdict.IPv4Options},
		{"option of one byte", options(7, 1, 0, 0), verdict.IPv4Options},
		{"option longer than the header", options(1, 0x94, 4, 0), verdict.IPv4Options},
		{"checksum", alter(udp4.Frame(), 24, 1, 2), verdict.IPv4Checksum},

		{"version 4 in an IPv6 frame", alter(udp6.Frame(), 14, 0x45), verdict.IPv6Header},
		{"IPv6 header cut off", udp6.Frame()[:14+39], verdict.IPv6Header},
		{"payload length beyond the frame", alter(udp6.Frame(), 18, 0xff, 0xff), verdict.IPv6Length},
		{"jumbogram", alter(chain(0, 17, 0, 0xc2, 4, 0, 1, 0, 0).Frame(), 18, 0, 0), verdict.IPv6Chain},
		{"option header longer than the packet", chain(60, 17, 255, 0, 0, 0, 0, 0, 0).Frame(), verdict.IPv6Chain},
		{"chain ends in a header's first byte", cutIPv6(chain(60, 17, 0, 0, 0, 0, 0, 0, 0).Frame(), 1), verdict.IPv6Chain},
		{"hop-by-hop second", chain(60, 0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0).Frame(), verdict.IPv6Chain},
		{"17 extension headers", chain(60, chainOf(17)...).Frame(), verdict.IPv6ChainTooLong},
		{"16 extension headers", chain(60, chainOf(16)...).Frame(), verdict.Passed},

		{"IPv4 fragment without payload", udp4.Fragment(8, nil, true), verdict.FragmentEmpty},
		{"IPv6 fragment without payload", udp6.Fragment(8, nil, true), verdict.FragmentEmpty},
		{"IPv4 M flag with 9 bytes", udp4.Fragment(8, make([]byte, 9), true), verdict.FragmentUnaligned},
		{"IPv6 M flag with 9 bytes", udp6.Fragment(8, make([]byte, 9), true), verdict.FragmentUnaligned},
		{"IPv4 fragment to 65,535 with its header", udp4.Fragment(65512, make([]byte, 3), false), verdict.Passed},
		{"IPv4 fragment to 65,536 with its header", udp4.Fragment(65512, make([]byte, 4), false), verdict.FragmentTooLong},
		{"IPv6 fragment to 65,535", udp6.Fragment(65528, make([]byte, 7), false), verdict.Passed},
		{"IPv6 fragment to 65,536", udp6.Fragment(65528, make([]byte, 8), false), verdict.FragmentTooLong},
		{"IPv6 fragment to 65,536 with a header before", chain(60, 44, 0, 1, 4, 0, 0, 0, 0).Fragment(65520, make([]byte, 8), false), verdict.FragmentTooLong},
		{"two fragment headers", fragmentHeaders(), verdict.FragmentTwoHeaders},
		{"first fragment with half a TCP header", halfTCP(), verdict.FragmentIncompleteChain},
		{"first fragment that ends in its chain", endsInChain(), verdict.FragmentIncompleteChain},
		{"neighbour solicitation in fragments", nd.Fragment(0, nd.Payload, true), verdict.FragmentedNeighborDiscovery},
		{"neighbour solicitation, atomic", nd.Fragment(0, nd.Payload, false), verdict.FragmentedNeighborDiscovery},
		{"neighbour solicitation, whole", nd.Frame(), verdict.Passed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p packet.Parsed
			if got := p.Decode(tt.frame); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestKindsAndTransport(t *testing.T) {
	icmp := func(src, dst netip.Addr, protocol uint8, payload ...byte) []byte {
		return packettest.Datagram{Src: src, Dst: dst, Protocol: protocol, Payload: payload}.Frame()
	}
	tests := []struct {
		name      string
		frame     []byte
		kind      packet.Kind
		transport packet.Transport
	}{
		{"arp", packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28)), packet.ARP, packet.NoFields},
		{"lldp", packettest.Datagram{}.Ethernet(0x88cc, make([]byte, 46)), packet.NonIP, packet.NoFields},
		{"802.3", packettest.Datagram{}.Ethernet(38, make([]byte, 46)), packet.NonIP, packet.NoFields},
		{"echo", icmp(in4.Addr(), out4.Addr(), 1, 8, 0, 0, 0), packet.IPv4, packet.ICMP},
		{"echo6", icmp(in6.Addr(), out6.Addr(), 58, 128, 0, 0, 0), packet.IPv6, packet.ICMP},
		{"icmpv6 over ipv4", icmp(in4.Addr(), out4.Addr(), 58, 128, 0, 0, 0), packet.IPv4, packet.NoFields},
		{"icmp over ipv6", icmp(in6.Addr(), out6.Addr(), 1, 8, 0, 0, 0), packet.IPv6, packet.NoFields},
		{"one byte of icmp", icmp(in4.Addr(), out4.Addr(), 1, 8), packet.IPv4, packet.Truncated},
		{"three bytes of udp", icmp(in4.Addr(), out4.Addr(), 17, 8, 1, 2), packet.IPv4, packet.Truncated},
		{"gre", icmp(in4.Addr(), out4.Addr(), 47, 8, 1, 2), packet.IPv4, packet.NoFields},
		{"ah in ipv4", icmp(in4.Addr(), out4.Addr(), 51, 17, 4), packet.IPv4, packet.NoFields},
		{"sctp", icmp(in6.Addr(), out6.Addr(), 132, make([]byte, 12)...), packet.IPv6, packet.Ports},
		{"no next header", icmp(in6.Addr(), out6.Addr(), 59), packet.IPv6, packet.NoFields},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p packet.Parsed
			if why := p.Decode(tt.frame); why != verdict.Passed || p.Kind != tt.kind || p.Transport != tt.transport {
				t.Errorf("%v, kind %v, transport %v; want kind %v, transport %v", why, p.Kind, p.Transport, tt.kind, tt.transport)
			}
		})
	}
}

// TestCompleteReadsHeaderAcrossFragments has a first fragment with ports, and a reassembled
// payload with other ports. The payload counts. In IPv4 a transport header may extend over
// several fragments.
func TestCompleteReadsHeaderAcrossFragments(t *testing.T) {
	d := packettest.UDP(in4, out4, packettest.Body(16))
	var p packet.Parsed
	if why := p.Decode(d.Fragment(0, d.Payload[:8], true)); why != verdict.Passed {
		t.Fatal(why)
	}
	p.Complete([]byte{1, 2, 3, 4})
	if p.Transport != packet.Ports || p.SrcPort != 0x0102 || p.DstPort != 0x0304 || !p.Fragmented || p.Fragment.Present {
		t.Errorf("%+v", p)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range verdict.Reason(verdict.Reasons) {
		name := r.String()
		if name == "" || seen[name] {
			t.Errorf("reason %d: name %q is empty or not unique", r, name)
		}
		seen[name] = true
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	frame := packettest.UDP(in6, out6, packettest.Body(64)).Frame()
	var p packet.Parsed
	if n := testing.AllocsPerRun(100, func() { p.Decode(frame) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func concat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func alter(frame []byte, at int, with ...byte) []byte {
	copy(frame[at:], with)
	return frame
}

// cutIPv6 keeps n bytes of the frame's IPv6 payload.
func cutIPv6(frame []byte, n int) []byte {
	binary.BigEndian.PutUint16(frame[18:], uint16(n))
	return frame[:14+40+n]
}

// chainOf returns n destination options headers before UDP.
func chainOf(n int) (chain []byte) {
	for i := range n {
		next := byte(60)
		if i == n-1 {
			next = packet.ProtocolUDP
		}
		chain = append(chain, next, 0, 1, 4, 0, 0, 0, 0)
	}
	return chain
}

func halfTCP() []byte {
	d := packettest.TCP(in6, out6, 2)
	return d.Fragment(0, d.Payload[:16], true)
}

func endsInChain() []byte {
	d := packettest.UDP(in6, out6, nil)
	d.FirstAfter, d.After = 60, []byte{60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0}
	return d.Fragment(0, d.After[:8], true)
}

// TestNextHeaderOfFragmentHeader has extension headers before the fragment header. The Next
// Header field of the last of these announces the fragment header.
func TestNextHeaderOfFragmentHeader(t *testing.T) {
	d := packettest.UDP(in6, out6, packettest.Body(64))
	d.FirstBefore = 0
	d.Before = []byte{60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0}
	for _, offset := range []int{0, 8} {
		frame := d.Fragment(offset, d.Payload[:16], true)
		var p packet.Parsed
		if why := p.Decode(frame); why != verdict.Passed {
			t.Fatal(why)
		}
		if at := p.Fragment.NextHeader; at != 14+40+8 || frame[at] != 44 {
			t.Errorf("at offset %d: the field is at %d", offset, at)
		}
	}
}

// TestHoldsTransport cuts IPv4 first fragments inside their transport header, and right after
// it.
func TestHoldsTransport(t *testing.T) {
	for protocol, size := range map[uint8]int{
		packet.ProtocolTCP: 24, packet.ProtocolSCTP: 16, packet.ProtocolDCCP: 16,
		packet.ProtocolUDP: 8, packet.ProtocolICMP: 8, packet.ProtocolESP: 8, packet.ProtocolGRE: 8, 253: 8,
	} {
		d := packettest.Datagram{Src: in4.Addr(), Dst: out4.Addr(), Protocol: protocol, Payload: make([]byte, 64)}
		for n := 8; n <= 24; n += 8 {
			var p packet.Parsed
			p.Decode(d.Fragment(0, d.Payload[:n], true))
			if p.HoldsTransport() != (n >= size) {
				t.Errorf("protocol %d in %d bytes: %v", protocol, n, p.HoldsTransport())
			}
		}
	}
}
