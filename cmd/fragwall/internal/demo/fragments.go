package demo

import (
	"encoding/binary"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/checksum"
)

// Lengths of headers in bytes.
const (
	ethernetLength = 14
	ipv4Length     = 20
	ipv6Length     = 40
	fragmentLength = 8 // fragment header of IPv6
	udpLength      = 8
)

// hopLimit is the hop limit that hosts send with, the default of RFC 1700.
const hopLimit = 64

// fragmentsOf returns the frames of a UDP datagram in fragments of size bytes of payload, a
// multiple of 8. The caller sets the MAC addresses.
func fragmentsOf(from, to netip.AddrPort, id uint32, body []byte, size int) (frames [][]byte) {
	datagram := make([]byte, udpLength, udpLength+len(body))
	binary.BigEndian.PutUint16(datagram[0:], from.Port())
	binary.BigEndian.PutUint16(datagram[2:], to.Port())
	binary.BigEndian.PutUint16(datagram[4:], uint16(udpLength+len(body)))
	datagram = append(datagram, body...)
	checksum.Put(datagram, 6, checksum.PseudoHeader(from.Addr(), to.Addr(), packet.ProtocolUDP, len(datagram)))

	build := ipv6Fragment
	if from.Addr().Is4() {
		build = ipv4Fragment
	}
	for at := 0; at < len(datagram); at += size {
		end := min(at+size, len(datagram))
		frames = append(frames, build(from.Addr(), to.Addr(), id, at, end < len(datagram), datagram[at:end]))
	}
	return frames
}

// ipv4Fragment returns a fragment without IP options (RFC 791, section 3.1).
func ipv4Fragment(from, to netip.Addr, id uint32, offset int, more bool, payload []byte) []byte {
	frame := make([]byte, ethernetLength+ipv4Length, ethernetLength+ipv4Length+len(payload))
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	h := frame[ethernetLength:]
	h[0] = 4<<4 | ipv4Length/4
	binary.BigEndian.PutUint16(h[2:], uint16(ipv4Length+len(payload)))
	binary.BigEndian.PutUint16(h[4:], uint16(id))
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	binary.BigEndian.PutUint16(h[6:], field)
	h[8], h[9] = hopLimit, packet.ProtocolUDP
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	checksum.Put(h, 10, 0)
	return append(frame, payload...)
}

// ipv6Fragment returns a fragment whose only extension header is the fragment header (RFC 8200,
// section 4.5).
func ipv6Fragment(from, to netip.Addr, id uint32, offset int, more bool, payload []byte) []byte {
	const headers = ethernetLength + ipv6Length + fragmentLength
	frame := make([]byte, headers, headers+len(payload))
	binary.BigEndian.PutUint16(frame[12:], 0x86dd)
	h := frame[ethernetLength:]
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(fragmentLength+len(payload)))
	h[6], h[7] = 44, hopLimit // 44: fragment header
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	f := h[ipv6Length:]
	f[0] = packet.ProtocolUDP
	field := uint16(offset)
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(f[2:], field)
	binary.BigEndian.PutUint32(f[4:], id)
	return append(frame, payload...)
}

// body returns n bytes that vary with their position.
func body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8*31 + i*7)
	}
	return b
}
