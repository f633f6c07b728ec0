package frametext

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"fragwall/packet"
	"fragwall/rules"
)

// sizeICMP is the size of an ICMP header in bytes (RFC 792).
const sizeICMP = 8

// Types and codes of ICMP messages that have a name in the description (IANA, "ICMP Type
// Numbers" and "ICMPv6 Parameters").
const (
	echoReply    = 0
	echoRequest  = 8
	echoRequest6 = 128
	echoReply6   = 129

	unreachableProtocol   = 2
	unreachablePort       = 3
	unreachableNeedsFrag  = 4
	unreachableProhibited = 13
	reassemblyExceeded    = 1

	unreachable6Prohibited = 1
	unreachable6Port       = 4
	packetTooBig6          = 2
	timeExceeded6          = 3
	neighborSolicitation   = 135
	neighborAdvertisement  = 136
)

// appendICMP appends the description of an ICMP or ICMPv6 message.
func appendICMP(b []byte, p *packet.Parsed, upper []byte) []byte {
	text := ""
	if p.Kind == packet.IPv4 {
		b = append(b, "ICMP "...)
		text = icmpText(upper)
	} else {
		b = append(b, "ICMP6, "...)
		text = icmp6Text(upper)
	}
	return fmt.Appendf(b, "%s, length %d", text, len(upper))
}

func echoText(what string, upper []byte) string {
	return fmt.Sprintf("echo %s, id %d, seq %d", what, binary.BigEndian.Uint16(upper[4:]), binary.BigEndian.Uint16(upper[6:]))
}

// icmpText describes an ICMP message (RFC 792).
func icmpText(upper []byte) string {
	dst, protocol, port := quoted(upper[sizeICMP:])
	code := upper[1]
	switch kind := upper[0]; {
	case kind == echoRequest:
		return echoText("request", upper)
	case kind == echoReply:
		return echoText("reply", upper)
	case kind == packet.ICMPTimeExceeded && code == reassemblyExceeded:
		return "ip reassembly time exceeded"
	case kind == packet.ICMPTimeExceeded:
		return "time exceeded in-transit"
	case kind != packet.ICMPDestinationUnreachable || !dst.IsValid():
		return fmt.Sprintf("type-#%d", kind)
	}
	switch code {
	case 0:
		return fmt.Sprintf("net %s unreachable", dst)
	case 1:
		return fmt.Sprintf("host %s unreachable", dst)
	case unreachableProtocol:
		return fmt.Sprintf("%s protocol %d unreachable", dst, protocol)
	case unreachablePort:
		if packet.HasPorts(protocol) {
			return fmt.Sprintf("%s %s port %d unreachable", dst, rules.ProtocolName(protocol), port)
		}
		return fmt.Sprintf("%s protocol %d port %d unreachable", dst, protocol, port)
	case unreachableNeedsFrag:
		if mtu := binary.BigEndian.Uint16(upper[6:]); mtu > 0 {
			return fmt.Sprintf("%s unreachable - need to frag (mtu %d)", dst, mtu)
		}
		return fmt.Sprintf("%s unreachable - need to frag", dst)
	case unreachableProhibited:
		return fmt.Sprintf("host %s unreachable - admin prohibited filter", dst)
	}
	return fmt.Sprintf("%s unreachable - #%d", dst, code)
}

// icmp6Text describes an ICMPv6 message (RFC 4443, RFC 4861).
func icmp6Text(upper []byte) string {
	dst, protocol, port := quoted(upper[sizeICMP:])
	target := func() netip.Addr {
		a, _ := netip.AddrFromSlice(upper[sizeICMP:min(len(upper), sizeICMP+16)])
		return a
	}
	switch kind, code := upper[0], upper[1]; {
	case kind == echoRequest6:
		return echoText("request", upper)
	case kind == echoReply6:
		return echoText("reply", upper)
	case kind == packetTooBig6:
		return fmt.Sprintf("packet too big, mtu %d", binary.BigEndian.Uint32(upper[4:]))
	case kind == timeExceeded6 && code == reassemblyExceeded:
		return "ip reassembly time exceeded"
	case kind == timeExceeded6 && dst.IsValid():
		return fmt.Sprintf("time exceeded in-transit for %s", dst)
	case kind == packet.ICMPv6DestinationUnreachable && code == unreachable6Port && packet.HasPorts(protocol):
		return fmt.Sprintf("destination unreachable, unreachable port, %s %s port %d", dst, rules.ProtocolName(protocol), port)
	case kind == packet.ICMPv6DestinationUnreachable && code == unreachable6Prohibited && dst.IsValid():
		return fmt.Sprintf("destination unreachable, unreachable prohibited %s", dst)
	case kind == packet.ICMPv6DestinationUnreachable && code == 0 && dst.IsValid():
		return fmt.Sprintf("destination unreachable, unreachable route %s", dst)
	case kind == neighborSolicitation && target().IsValid():
		return fmt.Sprintf("neighbor solicitation, who has %s", target())
	case kind == neighborAdvertisement && target().IsValid():
		return fmt.Sprintf("neighbor advertisement, tgt is %s", target())
	default:
		return fmt.Sprintf("type-#%d", kind)
	}
}

// quoted decodes the packet that an error message quotes: its destination, protocol and
// destination port. The address is invalid if the packet cannot be decoded.
func quoted(b []byte) (dst netip.Addr, protocol uint8, port uint16) {
	size := 0
	switch {
	case len(b) >= packet.SizeIPv4 && b[0]>>4 == 4:
		dst, protocol, size = netip.AddrFrom4([4]byte(b[16:20])), b[9], int(b[0]&0xf)*4
	case len(b) >= packet.SizeIPv6 && b[0]>>4 == 6:
		dst, protocol, size = netip.AddrFrom16([16]byte(b[24:40])), b[6], packet.SizeIPv6
	}
	if size > 0 && len(b) >= size+4 {
		port = binary.BigEndian.Uint16(b[size+2:])
	}
	return dst, protocol, port
}
