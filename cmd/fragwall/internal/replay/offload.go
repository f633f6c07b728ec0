package replay

import (
	"encoding/binary"

	"fragwall/packet"
	"fragwall/packet/checksum"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// A capture on a host has the frames that it sends as they were before its NIC completed them.
// The frames then have a length or checksum of 0 in the IP header, or hold TCP or UDP packets
// that are longer than the MTU, which the NIC cuts into segments (checksum and segmentation
// offload).

// leftToNIC reports whether the IP length or the header checksum is 0 because the sender left
// it to its NIC.
func leftToNIC(frame []byte) bool {
	var p packet.Parsed
	p.Decode(frame)
	return noLength(frame, &p) || noChecksum(frame, &p)
}

// noLength reports whether the length was left to the NIC. An IPv6 packet other than TCP or UDP
// may be valid with a length of 0: a jumbogram (RFC 2675), or a packet without payload.
func noLength(frame []byte, p *packet.Parsed) bool {
	if !p.NoLength || p.Kind == packet.IPv4 {
		return p.NoLength
	}
	next := frame[p.Network+6] // Next Header (RFC 8200, section 3)
	return next == packet.ProtocolTCP || next == packet.ProtocolUDP
}

// noChecksum reports whether the header checksum was left to the NIC.
func noChecksum(frame []byte, p *packet.Parsed) bool {
	ip := ipv4Header(frame, p)
	return ip != nil && ip.zeroChecksum() && !ip.valid()
}

// ipv4 is an IPv4 header with its options.
type ipv4 []byte

// ipv4Checksum is the offset of the checksum in the header (RFC 791, section 3.1).
const ipv4Checksum = 10

func (h ipv4) zeroChecksum() bool { return binary.BigEndian.Uint16(h[ipv4Checksum:]) == 0 }
func (h ipv4) valid() bool        { return checksum.Sum(h, 0) == checksum.Valid }

// ipv4Header returns the IPv4 header of a frame, or nil if it has none.
func ipv4Header(frame []byte, p *packet.Parsed) ipv4 {
	if p.Kind != packet.IPv4 || len(frame)-p.Network < packet.SizeIPv4 {
		return nil
	}
	ip := ipv4(frame[p.Network:])
	size := int(ip[0]&0xf) * 4
	if size < packet.SizeIPv4 || size > len(ip) {
		return nil
	}
	return ip[:size:size]
}

// complete fills in what the sender left to its NIC, in place. It returns a frame as the driver
// of a NIC receives it: a packet longer than the MTU is marked for segmentation.
func complete(data []byte, mtu int) tun.Frame {
	f := tun.Frame{Data: data}
	var p packet.Parsed
	p.Decode(data)
	fill(data, &p)
	if p.Decode(data) == verdict.Passed && p.Length(data) > mtu && !p.Fragment.Present {
		segment(&f, &p, mtu)
	}
	return f
}

// fill fills in the IP length and the header checksum.
func fill(data []byte, p *packet.Parsed) {
	length := len(data) - p.Network
	if p.Kind == packet.IPv6 {
		length -= packet.SizeIPv6
	}
	ip := ipv4Header(data, p)
	unsummed := ip != nil && (ip.zeroChecksum() || ip.valid())
	if noLength(data, p) && length <= 0xffff {
		at := p.Network + 2
		if p.Kind == packet.IPv6 {
			at = p.Network + 4
		}
		binary.BigEndian.PutUint16(data[at:], uint16(length))
	}
	if unsummed {
		checksum.Put(ip, ipv4Checksum, 0)
	}
}

// segment marks a TCP or UDP packet for segmentation into packets that fit the MTU.
func segment(f *tun.Frame, p *packet.Parsed, mtu int) {
	upper := f.Data[p.Upper:p.End]
	headers := p.Upper - p.Network
	switch {
	case p.Protocol == packet.ProtocolTCP && len(upper) >= packet.SizeTCP:
		headers += int(upper[12]>>4) * 4 // data offset (RFC 9293, section 3.1)
		f.Offload.GSO = tun.GSOTCPv4
		if p.Kind == packet.IPv6 {
			f.Offload.GSO = tun.GSOTCPv6
		}
	case p.Protocol == packet.ProtocolUDP && len(upper) >= packet.SizeUDP:
		headers += packet.SizeUDP
		f.Offload.GSO = tun.GSOUDP
	}
	if !f.Offload.Segmented() || headers >= mtu {
		f.Offload = tun.Offload{}
		return
	}
	f.Data = f.Data[:p.End]
	f.Offload.SegmentSize = uint16(mtu - headers)
}
