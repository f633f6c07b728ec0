package filter

import (
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Near is a rule with several fields of which exactly one does not match.
type Near struct {
	Rule  *Rule
	Field string // its key in the configuration
}

// Near returns the rules before the given one, in order, that match a datagram in all
// fields but one. A before of 0 means all rules. It looks at every rule, and is meant for
// people.
func (t *Table) Near(d *packet.View, before verdict.Rule) []Near {
	var near []Near
	for i := range t.policy.Rules {
		r := &t.policy.Rules[i]
		if number(uint32(i)) == before {
			break
		}
		if misses, set := r.misses(d); len(misses) == 1 && set > 1 {
			near = append(near, Near{r, misses[0]})
		}
	}
	return near
}

// misses returns the fields of the rule that do not match a datagram, and the number of
// fields that the rule has.
func (r *Rule) misses(d *packet.View) (fields []string, set int) {
	ports, icmp := d.Transport == packet.Ports, d.Transport == packet.ICMP
	for _, f := range []struct {
		name  string
		set   bool
		match bool
	}{
		{"from", r.From != nil, r.From != nil && *r.From == d.From},
		{"protocol", r.Protocols != nil, r.Protocols.Contains(d.Protocol)},
		{"src", r.Src != nil, r.Src.Contains(d.Src)},
		{"dst", r.Dst != nil, r.Dst.Contains(d.Dst)},
		{"src_port", r.SrcPorts != nil, ports && r.SrcPorts.Contains(d.SrcPort)},
		{"dst_port", r.DstPorts != nil, ports && r.DstPorts.Contains(d.DstPort)},
		{"icmp_type", r.ICMPTypes != nil, icmp && r.ICMPTypes.Contains(d.ICMPType)},
		{"icmp_code", r.ICMPCodes != nil, icmp && r.ICMPCodes.Contains(d.ICMPCode)},
		{"vlan", r.VLANs != nil, r.VLANs != nil && r.VLANs.contain(d.VLANs().ID())},
		{"fragmented", r.Fragmented != nil, r.Fragmented != nil && *r.Fragmented == d.Fragmented},
	} {
		if !f.set {
			continue
		}
		set++
		if !f.match {
			fields = append(fields, f.name)
		}
	}
	return fields, set
}

func (v *VLANs) contain(id uint16) bool {
	if id == 0 {
		return v.Untagged
	}
	return v.IDs.Contains(id)
}
