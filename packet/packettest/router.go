package packettest

import (
	"encoding/binary"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// RouterAdvertisement returns a router advertisement from fe80::1 to all nodes (RFC 4861
// §4.2), with a prefix for address configuration, the prefix's lifetimes in seconds, and
// an MTU of 1480.
func RouterAdvertisement(router net.HardwareAddr, prefix netip.Prefix, valid, preferred uint32) []byte {
	body := []byte{134, 0, 0, 0, 64, 0}
	body = binary.BigEndian.AppendUint16(body, 1800) // lifetime of the router, s
	body = append(body, make([]byte, 8)...)
	body = append(append(body, 1, 1), router...) // source link-layer address
	body = append(body, 5, 1, 0, 0, 0, 0, 1480>>8, 1480&0xff)
	body = append(body, 3, 4, byte(prefix.Bits()), 0xc0)
	body = binary.BigEndian.AppendUint32(body, valid)
	body = binary.BigEndian.AppendUint32(body, preferred)
	body = append(append(body, 0, 0, 0, 0), prefix.Addr().AsSlice()...)
	d := Datagram{
		Src: netip.MustParseAddr("fe80::1"), Dst: netip.MustParseAddr("ff02::1"),
		TTL: 255, Protocol: uint8(header.ICMPv6ProtocolNumber), Payload: body,
	}
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, address(d.Src), address(d.Dst), uint16(len(body)))
	binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, sum))
	frame := d.Frame()
	copy(frame, "\x33\x33\x00\x00\x00\x01")
	copy(frame[6:], router)
	return frame
}
