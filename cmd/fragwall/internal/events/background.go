package events

import (
	"net/netip"

	"fragwall/packet"
)

// background is a protocol that hosts use on their link by themselves, towards all other hosts.
// Its packets are less worth logging.
type background uint8

const (
	foreground background = iota // everything else
	mld
	igmp
	mdns
	llmnr
	ssdp
	wsDiscovery
	dhcp
	lldp
	llc
	backgrounds
)

var backgroundNames = [backgrounds]string{
	foreground:  "",
	mld:         "mld",
	igmp:        "igmp",
	mdns:        "mdns",
	llmnr:       "llmnr",
	ssdp:        "ssdp",
	wsDiscovery: "ws_discovery",
	dhcp:        "dhcp",
	lldp:        "lldp",
	llc:         "llc",
}

const (
	protocolIGMP  = 2
	protocolUDP   = 17
	etherTypeLLDP = 0x88cc
	lengthField   = 0x0600 // an EtherType below it is an IEEE 802.3 length before an LLC header
)

// groupPorts are the UDP ports of protocols that query a whole link: RFC 6762, section 3; RFC
// 4795, section 2.5; UPnP Device Architecture, section 1.1; WS-Discovery, section 2.4; RFC
// 2131, section 4.1; RFC 8415, section 7.2.
var groupPorts = map[uint16]background{5353: mdns, 5355: llmnr, 1900: ssdp, 3702: wsDiscovery, 67: dhcp, 547: dhcp}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// backgroundOf returns the background protocol of a packet. p may be nil.
func backgroundOf(p *packet.Parsed) background {
	switch {
	case p == nil || p.Fragmented:
		return foreground
	case p.Kind == packet.NonIP && p.EtherType == etherTypeLLDP:
		return lldp
	case p.Kind == packet.NonIP && p.Network > 0 && p.EtherType < lengthField:
		return llc
	case p.Kind == packet.IPv4 && p.Protocol == protocolIGMP:
		return igmp
	case p.Kind == packet.IPv6 && p.Transport == packet.ICMP && isMLD(p.ICMPType):
		return mld
	case p.Transport == packet.Ports && p.Protocol == protocolUDP && (p.Dst.IsMulticast() || p.Dst == broadcast):
		return groupPorts[p.DstPort]
	}
	return foreground
}

// isMLD reports whether an ICMPv6 type belongs to multicast listener discovery (RFC 2710, RFC
// 9777).
func isMLD(icmp uint8) bool { return icmp >= 130 && icmp <= 132 || icmp == 143 }
