package packet

import (
	"encoding/binary"

	"fragwall/packet/verdict"
)

const (
	etherTypeDot1Q  = 0x8100 // customer tag, IEEE 802.1Q
	etherTypeDot1AD = 0x88a8 // service tag, IEEE 802.1ad
	tagSize         = 4
	typeSize        = 2 // of an EtherType, or an 802.3 length in its place

	// IEEE 802.3 §3.2.6: a value under minEtherType is a length, of which more
	// than maxLLC is undefined; the kernel takes it for a length, too.
	minEtherType = 0x600
	maxLLC       = 1500
)

// decodeLink reads the Ethernet header, the VLAN tags, and the LLC header where
// that is followed by what an Ethernet frame can carry, too. Then p.End bounds
// what follows.
func (p *Parsed) decodeLink(frame []byte) verdict.Reason {
	if len(frame) < SizeEthernet {
		return verdict.EthernetTruncated
	}
	p.End = len(frame)
	for at := 2 * SizeMAC; ; {
		p.EtherType = binary.BigEndian.Uint16(frame[at:])
		p.Network = at + typeSize
		switch {
		case p.EtherType == etherTypeDot1Q, p.EtherType == etherTypeDot1AD:
			if int(p.TagCount) == len(p.Tags) {
				return verdict.VLANTooDeep
			}
			if p.End < at+tagSize+typeSize {
				return verdict.EthernetTruncated
			}
			p.Tags[p.TagCount] = Tag{TPID: p.EtherType, TCI: binary.BigEndian.Uint16(frame[at+typeSize:])}
			p.TagCount++
			at += tagSize
		case p.EtherType < minEtherType:
			nested := p.LLC > 0
			if !nested {
				p.LLC = p.Network
			}
			size, isIP := encapsulation(frame[p.Network:p.End])
			if size == 0 {
				return verdict.Passed
			}
			end := p.LLC + int(p.EtherType)
			if nested || end < p.LLC+size || end > p.End {
				return verdict.LLCHeader
			}
			p.End = end
			if isIP {
				p.EtherType, p.Network = EtherTypeIPv4, p.LLC+size
				return verdict.Passed
			}
			at = p.LLC + size - typeSize
		default:
			return verdict.Passed
		}
	}
}

// IEEE 802.2 §3.2: service access points by their addresses, without the group
// and response bits, and the control field of unnumbered information, without
// the poll bit.
const (
	sapIP       = 0x06
	sapSNAP     = 0xaa
	sapBit      = 0x01
	llcUI       = 0x03
	llcPoll     = 0x10
	llcSize     = 3
	snapSize    = 5 // organization (OUI) and EtherType
	ouiEthernet = 0x000000
	ouiBridged  = 0x0000f8
)

// encapsulation returns the size of the LLC header, SNAP header included, at
// the beginning of b, where it carries what Ethernet frames carry: behind an
// EtherType, by RFC 1042 or as a bridge tunnel (IEEE 802.1H), or IPv4 without
// one. Wi-Fi access points and some hosts take such a frame for an Ethernet
// frame, whatever its 802.3 length says. The size is 0 of any other LLC header.
func encapsulation(b []byte) (size int, isIP bool) {
	if len(b) < llcSize || b[2]&^llcPoll != llcUI {
		return 0, false
	}
	switch dsap, ssap := b[0]&^sapBit, b[1]&^sapBit; {
	case dsap == sapIP:
		return llcSize, true
	case dsap != sapSNAP, ssap != sapSNAP, len(b) < llcSize+snapSize:
		return 0, false
	}
	switch uint32(b[3])<<16 | uint32(b[4])<<8 | uint32(b[5]) {
	case ouiEthernet, ouiBridged:
		return llcSize + snapSize, false
	}
	return 0, false
}

// PacketMTU returns how long a packet may be, in bytes, behind the link layer
// of the frame, where the MTU is that of an Ethernet device: an LLC header
// counts as payload.
func (p *Parsed) PacketMTU(mtu int) int {
	if p.LLC == 0 {
		return mtu
	}
	return min(mtu, maxLLC) - (p.Network - p.LLC)
}

// SetLength writes the 802.3 length into a frame that has p's link layer but
// another packet behind it, which is no longer than [Parsed.PacketMTU].
func (p *Parsed) SetLength(frame []byte) {
	if p.LLC > 0 {
		binary.BigEndian.PutUint16(frame[p.LLC-typeSize:], uint16(len(frame)-p.LLC))
	}
}
