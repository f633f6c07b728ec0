package filter

import "fragwall/packet"

// Judge returns the verdict on a decoded packet that came in by side from.
// The packet is whole, put together, or, in the modes that judge fragments
// one by one, a first fragment.
func (p *Policy) Judge(d *packet.Parsed, from packet.Side) Verdict {
	switch {
	case d.Kind == packet.ARP:
		return fixed(p.ARP, packet.PolicyARP)
	case d.Kind == packet.NonIP:
		return fixed(p.NonIP, packet.PolicyNonIP)
	case d.NeighborDiscovery():
		return fixed(p.NeighborDiscovery, packet.PolicyNeighborDiscovery)
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.matchesPacket(d, from) {
			continue
		}
		if d.Transport == packet.Truncated && r.needsTransport(d.Protocol) {
			return Verdict{Action: Drop, Reason: packet.TransportTruncated, Rule: r}
		}
		if !r.matchesTransport(d) {
			continue
		}
		v := fixed(r.Action, packet.PolicyRule)
		v.Rule = r
		return v
	}
	return fixed(p.Default, packet.PolicyDefault)
}

// fixed returns the verdict of an action that no rule took, for a reason.
func fixed(a Action, why packet.Reason) Verdict {
	if a == Accept {
		return Verdict{Action: Accept}
	}
	return Verdict{Action: Drop, Reason: why}
}

// matchesPacket compares all that every packet has.
func (r *Rule) matchesPacket(d *packet.Parsed, from packet.Side) bool {
	return (r.From == nil || *r.From == from) &&
		(r.Fragmented == nil || *r.Fragmented == d.Fragmented) &&
		(r.VLANs == nil || r.VLANs.contain(d)) &&
		r.Protocols.Contains(d.Protocol) &&
		r.Src.Contains(d.Src) &&
		r.Dst.Contains(d.Dst)
}

// needsTransport reports whether the rule asks for a field that the header of
// a datagram of that protocol should have had.
func (r *Rule) needsTransport(protocol uint8) bool {
	if packet.HasPorts(protocol) {
		return r.SrcPorts != nil || r.DstPorts != nil
	}
	return r.ICMPTypes != nil || r.ICMPCodes != nil
}

// matchesTransport compares the fields of the transport header. What a packet
// does not have, a rule that asks for it does not match.
func (r *Rule) matchesTransport(d *packet.Parsed) bool {
	if r.SrcPorts != nil || r.DstPorts != nil {
		if d.Transport != packet.Ports || !r.SrcPorts.Contains(d.SrcPort) || !r.DstPorts.Contains(d.DstPort) {
			return false
		}
	}
	if r.ICMPTypes != nil || r.ICMPCodes != nil {
		if d.Transport != packet.ICMP || !r.ICMPTypes.Contains(d.ICMPType) || !r.ICMPCodes.Contains(d.ICMPCode) {
			return false
		}
	}
	return true
}

func (v *VLANs) contain(d *packet.Parsed) bool {
	if d.TagCount == 0 || d.Tags[0].VID() == 0 {
		return v.Untagged
	}
	return v.IDs.Contains(d.Tags[0].VID())
}
