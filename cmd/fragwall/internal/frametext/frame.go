package frametext

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Append appends the description of a frame to b.
func Append(b, frame []byte) []byte {
	var p packet.Parsed
	why := p.Decode(frame)
	vlans := p.VLANs()
	for _, vlan := range vlans[:vlans.Len()] {
		b = fmt.Appendf(b, "vlan %d, ", vlan.VID())
	}
	switch {
	case p.Network == 0:
		return fmt.Appendf(b, "no Ethernet frame, length %d", len(frame))
	case p.Kind == packet.ARP:
		return appendARP(b, frame[p.Network:])
	case p.Kind == packet.NonIP && p.LLC > 0:
		return fmt.Appendf(b, "802.3, length %d", p.EtherType)
	case p.Kind == packet.NonIP:
		return fmt.Appendf(b, "ethertype %#04x, length %d", p.EtherType, len(frame)-p.Network)
	}
	if b = append(b, "IP "...); p.Kind == packet.IPv6 {
		b = append(b[:len(b)-1], "6 "...)
	}
	if why != verdict.Passed && p.Upper == 0 {
		return fmt.Appendf(appendHosts(b, &p), "%s, length %d", why, len(frame)-p.Network)
	}
	return appendPacket(b, &p, frame[:p.End])
}

// AppendFragment appends the identification, the length and the offset of a fragment in bytes,
// with "+" unless it is the last. It appends nothing for other frames.
func AppendFragment(b, frame []byte) []byte {
	var p packet.Parsed
	p.Decode(frame)
	f := &p.Fragment
	if !f.Present {
		return b
	}
	b = fmt.Appendf(b, " (frag %d:%d@%d", f.ID, p.End-f.Payload, f.Offset)
	if f.More {
		b = append(b, '+')
	}
	return append(b, ')')
}

// appendHosts appends both addresses, if they could be decoded.
func appendHosts(b []byte, p *packet.Parsed) []byte {
	if !p.Src.IsValid() {
		return b
	}
	return append(p.Dst.AppendTo(append(p.Src.AppendTo(b), " > "...)), ": "...)
}

// appendEndpoints appends both addresses with their ports.
func appendEndpoints(b []byte, p *packet.Parsed) []byte {
	endpoint := func(a netip.Addr, port uint16) {
		b = strconv.AppendUint(append(a.AppendTo(b), '.'), uint64(port), 10)
	}
	endpoint(p.Src, p.SrcPort)
	b = append(b, " > "...)
	endpoint(p.Dst, p.DstPort)
	return append(b, ": "...)
}

// appendPacket appends the description of an IP packet. The frame must end with the packet.
func appendPacket(b []byte, p *packet.Parsed, frame []byte) []byte {
	f := &p.Fragment
	payload := len(frame) - f.Payload
	switch {
	case f.Present && p.Kind == packet.IPv6:
		b = fmt.Appendf(appendHosts(b, p), "frag (%d|%d)", f.Offset, payload)
		if f.Offset > 0 {
			return b
		}
		if b = append(b, ' '); p.Transport == packet.Ports {
			b = fmt.Appendf(b, "%d > %d: ", p.SrcPort, p.DstPort)
		}
	case f.Present && f.Offset > 0:
		return fmt.Appendf(appendHosts(b, p), "ip-proto-%d", p.Protocol)
	case p.Transport == packet.Ports:
		b = appendEndpoints(b, p)
	default:
		b = appendHosts(b, p)
	}
	upper := frame[p.Upper:]
	switch {
	case p.Protocol == packet.ProtocolUDP && p.Transport == packet.Ports && len(upper) >= packet.SizeUDP:
		return appendUDP(b, upper, f.Present)
	case p.Protocol == packet.ProtocolTCP && p.Transport == packet.Ports && len(upper) >= packet.SizeTCP:
		return appendTCP(b, upper)
	case p.Transport == packet.ICMP && len(upper) >= sizeICMP:
		return appendICMP(b, p, upper)
	}
	return fmt.Appendf(b, "%s, length %d", rules.ProtocolName(p.Protocol), len(upper))
}

// appendUDP appends the description of a UDP header (RFC 768).
func appendUDP(b, upper []byte, fragment bool) []byte {
	length, here := int(binary.BigEndian.Uint16(upper[4:]))-packet.SizeUDP, len(upper)-packet.SizeUDP
	switch {
	case length < 0:
		return fmt.Appendf(b, "UDP, bad length %d", length+packet.SizeUDP)
	case length > here && !fragment:
		return fmt.Appendf(b, "UDP, bad length %d > %d", length, here)
	}
	return fmt.Appendf(b, "UDP, length %d", length)
}

// ARP packets (RFC 826).
const (
	sizeARP    = 28 // size for IPv4 over Ethernet
	arpRequest = 1
	arpReply   = 2
)

// appendARP appends the description of an ARP packet (RFC 826).
func appendARP(b, arp []byte) []byte {
	if len(arp) < sizeARP || arp[4] != packet.SizeMAC || arp[5] != 4 {
		return fmt.Appendf(b, "ARP, length %d", len(arp))
	}
	hardware := net.HardwareAddr(arp[8:14])
	sender, target := netip.AddrFrom4([4]byte(arp[14:18])), netip.AddrFrom4([4]byte(arp[24:28]))
	switch operation := binary.BigEndian.Uint16(arp[6:]); operation {
	case arpRequest:
		return fmt.Appendf(b, "ARP, Request who-has %s tell %s, length %d", target, sender, len(arp))
	case arpReply:
		return fmt.Appendf(b, "ARP, Reply %s is-at %s, length %d", sender, hardware, len(arp))
	default:
		return fmt.Appendf(b, "ARP, operation %d, length %d", operation, len(arp))
	}
}
