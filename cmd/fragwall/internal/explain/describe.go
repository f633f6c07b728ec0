package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"fragwall/packet"
	"fragwall/rules"
)

// describe returns an IP datagram's 5-tuple and tags, for people.
func describe(p *packet.Parsed) string {
	var text strings.Builder
	text.WriteString(rules.ProtocolName(p.Protocol))
	src, dst := p.Src.String(), p.Dst.String()
	if p.Transport == packet.Ports {
		src, dst = netip.AddrPortFrom(p.Src, p.SrcPort).String(), netip.AddrPortFrom(p.Dst, p.DstPort).String()
	}
	fmt.Fprintf(&text, " %s > %s", src, dst)
	if p.Transport == packet.ICMP {
		fmt.Fprintf(&text, ", type %d, code %d", p.ICMPType, p.ICMPCode)
	}
	if id := p.VLANs().ID(); id != 0 {
		fmt.Fprintf(&text, ", vlan %d", id)
	}
	if p.SourceRoute {
		text.WriteString(", source route")
	}
	if p.Fragmented {
		text.WriteString(", in fragments")
	}
	return text.String()
}
