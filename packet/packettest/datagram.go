package packettest

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
)

// Datagram describes an IP datagram. The family is that of its addresses.
type Datagram struct {
	Tags     []packet.Tag // outermost first
	LLC      []byte       // between the 802.3 length and the EtherType, see SNAP; nil: Ethernet II
	Src, Dst netip.Addr
	ID       uint32
	TTL      uint8 // 64 where it is 0
	Protocol uint8 // of Payload
	Payload  []byte

	TrafficClass uint8 // DSCP and ECN; in IPv4 the type of service
	DontFragment bool  // the DF flag of IPv4

	// Options go into every IPv4 header. The caller pads them to 4 bytes.
	Options []byte
	// Before and After are IPv6 extension headers before and after the fragment header,
	// each with the Next Header field of the one that follows. FirstBefore and FirstAfter
	// are the types of the first header in each, if there is one. After is part of what
	// is fragmented.
	Before, After           []byte
	FirstBefore, FirstAfter uint8
}

// Hosts that the tests use by default.
var (
	InsideIPv4  = netip.MustParseAddr("10.0.0.1")
	OutsideIPv4 = netip.MustParseAddr("192.0.2.1")
	InsideIPv6  = netip.MustParseAddr("2001:db8::1")
	OutsideIPv6 = netip.MustParseAddr("2001:db8:1::1")
)

// UDP returns a datagram with a UDP header, checksum included, and body.
func UDP(src, dst netip.AddrPort, body []byte) Datagram {
	d := Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolUDP}
	u := make(header.UDP, header.UDPMinimumSize+len(body))
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(u))})
	copy(u.Payload(), body)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, address(d.Src), address(d.Dst), uint16(len(u)))
	u.SetChecksum(^checksum.Checksum(u, sum))
	d.Payload = u
	return d
}

// TCP returns a segment without data.
func TCP(src, dst netip.AddrPort, flags header.TCPFlags) Datagram {
	d := Datagram{Src: src.Addr(), Dst: dst.Addr(), Protocol: packet.ProtocolTCP}
	t := make(header.TCP, header.TCPMinimumSize)
	t.Encode(&header.TCPFields{SrcPort: src.Port(), DstPort: dst.Port(), DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 1024})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(d.Src), address(d.Dst), uint16(len(t)))
	t.SetChecksum(^checksum.Checksum(t, sum))
	d.Payload = t
	return d
}

// Body returns n bytes that differ from place to place.
func Body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8*31 + i*7)
	}
	return b
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// Frame returns the datagram unfragmented.
func (d Datagram) Frame() []byte {
	if d.Src.Is4() {
		return d.ipv4(0, d.Payload, 0)
	}
	next, chain := d.Protocol, append(append([]byte{}, d.Before...), d.After...)
	switch {
	case len(d.Before) > 0:
		next = d.FirstBefore
	case len(d.After) > 0:
		next = d.FirstAfter
	}
	return d.ipv6(next, append(chain, d.Payload...))
}

// Fragmentable returns the bytes that the datagram's fragments carry.
func (d Datagram) Fragmentable() []byte {
	return append(append([]byte{}, d.After...), d.Payload...)
}

// Fragments cuts the datagram into frames with size bytes of payload each, which must be
// a multiple of 8. The last one has the rest.
func (d Datagram) Fragments(size int) [][]byte {
	var frames [][]byte
	whole := d.Fragmentable()
	for at := 0; at < len(whole); at += size {
		end := min(at+size, len(whole))
		frames = append(frames, d.Fragment(at, whole[at:end], end < len(whole)))
	}
	return frames
}

// Fragment returns one fragment with any payload at any offset, a multiple of
// 8 bytes.
func (d Datagram) Fragment(offset int, payload []byte, more bool) []byte {
	field := uint16(offset)
	if d.Src.Is4() {
		field /= 8
		if more {
			field |= 0x2000
		}
		return d.ipv4(field, payload, uint16(d.ID))
	}
	if more {
		field |= 1
	}
	next := d.Protocol
	if len(d.After) > 0 {
		next = d.FirstAfter
	}
	h := make([]byte, header.IPv6FragmentHeaderSize, header.IPv6FragmentHeaderSize+len(payload))
	h[0] = next
	binary.BigEndian.PutUint16(h[2:], field)
	binary.BigEndian.PutUint32(h[4:], d.ID)
	first := uint8(header.IPv6FragmentHeader)
	if len(d.Before) > 0 {
		first = d.FirstBefore
	}
	return d.ipv6(first, append(append([]byte{}, d.Before...), append(h, payload...)...))
}

// SNAP is the LLC header for RFC 1042, without the EtherType.
var SNAP = []byte{0xaa, 0xaa, 3, 0, 0, 0}

// Ethernet returns a frame with the datagram's tags and any contents.
func (d Datagram) Ethernet(etherType uint16, contents []byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	for _, t := range d.Tags {
		f = binary.BigEndian.AppendUint16(f, t.TPID)
		f = binary.BigEndian.AppendUint16(f, t.TCI)
	}
	if d.LLC != nil {
		f = binary.BigEndian.AppendUint16(f, uint16(len(d.LLC)+2+len(contents)))
		f = append(f, d.LLC...)
	}
	f = binary.BigEndian.AppendUint16(f, etherType)
	return append(f, contents...)
}

func (d Datagram) ttl() uint8 {
	if d.TTL == 0 {
		return 64
	}
	return d.TTL
}

func (d Datagram) ipv4(field uint16, payload []byte, id uint16) []byte {
	size := header.IPv4MinimumSize + len(d.Options)
	b := make(header.IPv4, size, size+len(payload))
	b[0], b[1] = 4<<4|uint8(size/4), d.TrafficClass
	if d.DontFragment {
		field |= 0x4000
	}
	binary.BigEndian.PutUint16(b[2:], uint16(size+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], field)
	b[8], b[9] = d.ttl(), d.Protocol
	copy(b[12:], d.Src.AsSlice())
	copy(b[16:], d.Dst.AsSlice())
	copy(b[20:], d.Options)
	b.SetChecksum(^checksum.Checksum(b, 0))
	return d.Ethernet(uint16(header.IPv4ProtocolNumber), append(b, payload...))
}

func (d Datagram) ipv6(next uint8, payload []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	b[0], b[1] = 6<<4|d.TrafficClass>>4, d.TrafficClass<<4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, d.ttl()
	copy(b[8:], d.Src.AsSlice())
	copy(b[24:], d.Dst.AsSlice())
	return d.Ethernet(uint16(header.IPv6ProtocolNumber), append(b, payload...))
}
