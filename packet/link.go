package packet

import (
	"encoding/binary"

	"fragwall/packet/verdict"
)

const (
	etherTypeDot1Q  = 0x8100 // customer tag, IEEE 802.1Q
	etherTypeDot1AD = 0x88a8 // service tag, IEEE 802.1ad
	tagSize         = 4
	typeSize        = 2 // of an EtherType, or of the 802.3 length in its place

	// IEEE 802.3 §3.2.6: a value below minEtherType is a length. Lengths above maxLLC are
	// undefined; like the kernel, the decoder treats them as lengths.
	minEtherType = 0x600
	maxLLC       = 1500
)

// decodeLink reads the Ethernet header, the VLAN tags, and an LLC header if its contents
// could also follow an EtherType. p.End is then the end of the contents.
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

// IEEE 802.2 §3.2: addresses of service access points, without the group and response
// bits, and the control field of unnumbered information, without the poll bit.
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

// encapsulation returns the size of the LLC header at the beginning of b, including SNAP,
// if it carries what Ethernet frames carry: an EtherType by RFC 1042 or as a bridge
// tunnel (IEEE 802.1H), or IPv4 without an EtherType. Wi-Fi access points and some hosts
// treat such a frame as an Ethernet frame, whatever its 802.3 length. For any other LLC
// header the size is 0.
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

// PacketMTU returns the length in bytes that a packet may have after the link layer of
// the frame, for the given MTU of the Ethernet device. An LLC header counts as payload.
func (p *Parsed) PacketMTU(mtu int) int {
	if p.LLC == 0 {
		return mtu
	}
	return min(mtu, maxLLC) - (p.Network - p.LLC)
}

// SetLength writes the 802.3 length into a frame that has p's link layer and another
// packet, no longer than [Parsed.PacketMTU].
func (p *Parsed) SetLength(frame []byte) {
	if p.LLC > 0 {
		binary.BigEndian.PutUint16(frame[p.LLC-typeSize:], uint16(len(frame)-p.LLC))
	}
}
