package packet

import (
	"encoding/binary"
	"math"
	"net/netip"

	"fragwall/packet/checksum"
	"fragwall/packet/verdict"
)

const (
	ipv4FlagMore   = 0x2000
	ipv4OffsetMask = 0x1fff
	maxPacket      = math.MaxUint16 // bytes: the largest value of the IPv4 total length and the IPv6 payload length
)

// decodeIPv4 reads the IPv4 header at p.Network (RFC 791 §3.1).
func (p *Parsed) decodeIPv4(frame []byte) verdict.Reason {
	b := frame[p.Network:]
	if len(b) < SizeIPv4 || b[0]>>4 != versionIPv4 {
		return verdict.IPv4Header
	}
	size := int(b[0]&0xf) * 4
	if size < SizeIPv4 || size > len(b) {
		return verdict.IPv4Header
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	p.NoLength = length == 0
	if length < size || length > len(b) {
		return verdict.IPv4Length
	}
	if checksum.Sum(b[:size], 0) != checksum.Valid {
		return verdict.IPv4Checksum
	}
	p.End = p.Network + length
	p.HopLimit = b[8]
	p.Protocol = b[9]
	p.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.Upper = p.Network + size
	if r := p.decodeOptions(b[SizeIPv4:size]); r != verdict.Passed {
		return r
	}

	field := binary.BigEndian.Uint16(b[6:])
	if field&(ipv4FlagMore|ipv4OffsetMask) != 0 {
		p.Fragmented = true
		p.Fragment = Fragment{
			Present: true,
			More:    field&ipv4FlagMore != 0,
			ID:      uint32(binary.BigEndian.Uint16(b[4:])),
			Offset:  int(field&ipv4OffsetMask) * 8,
			Payload: p.Upper,
			Headers: size,
		}
		if r := p.checkFragment(); r != verdict.Passed {
			return r
		}
		if p.Fragment.Offset > 0 {
			return verdict.Passed
		}
	}
	p.decodeUpper(frame[p.Upper:p.End])
	return verdict.Passed
}

// decodeOptions looks for a source route among the options of an IPv4 header. As in the
// kernel (net/ipv4/ip_options.c), an option without room for its length, or for the bytes
// that its length announces, makes the packet malformed. Whatever follows the end of the
// list is ignored.
func (p *Parsed) decodeOptions(b []byte) verdict.Reason {
	const (
		end, noOperation   = 0, 1
		looseRoute, strict = 131, 137
	)
	for len(b) > 0 && b[0] != end {
		if b[0] == noOperation {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return verdict.IPv4Options
		}
		if b[0] == looseRoute || b[0] == strict {
			p.SourceRoute = true
		}
		b = b[b[1]:]
	}
	return verdict.Passed
}

// checkFragment checks a fragment on its own: its length, its alignment, and whether a
// datagram can hold it.
func (p *Parsed) checkFragment() verdict.Reason {
	length := p.End - p.Fragment.Payload
	switch {
	case length == 0:
		return verdict.FragmentEmpty
	case p.Fragment.More && length%8 != 0:
		return verdict.FragmentUnaligned
	case p.Fragment.Headers+p.Fragment.Offset+length > maxPacket:
		return verdict.FragmentTooLong
	}
	return verdict.Passed
}
