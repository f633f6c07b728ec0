package packet

// Tag is a VLAN tag (IEEE 802.1Q §9.6).
type Tag struct {
	TPID uint16 // 0x8100 or 0x88a8
	TCI  uint16 // priority, drop eligibility, VLAN identifier
}

// VID returns the VLAN identifier, 0 to 4095; 0 means "priority only".
func (t Tag) VID() uint16 { return t.TCI & 0xfff }

// VLANs are the VLANs of a frame, outermost first: its tags, except those with identifier
// 0, which carry only a priority (IEEE 802.1Q §6.9), and without the bits for priority
// and drop eligibility, so that the TCI is the identifier. An unused entry is zero.
// Frames with equal VLANs belong to one VLAN, as in the kernel, which removes a priority
// tag before it looks at the next tag (net/core/dev.c, __netif_receive_skb_core).
type VLANs [2]Tag

// VLANs returns the VLANs of the frame.
func (p *Parsed) VLANs() (v VLANs) {
	n := 0
	for _, tag := range p.Tags[:p.TagCount] {
		if id := tag.VID(); id != 0 {
			v[n] = Tag{TPID: tag.TPID, TCI: id}
			n++
		}
	}
	return v
}

// ID returns the identifier of the outermost VLAN, which rules match; 0 means none.
func (v VLANs) ID() uint16 { return v[0].TCI }

// Len returns the number of VLANs.
func (v VLANs) Len() int {
	n := 0
	for n < len(v) && v[n].TCI != 0 {
		n++
	}
	return n
}
