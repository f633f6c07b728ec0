package packet

// Protocol numbers that the decoder or the policy knows (IANA, "Assigned Internet
// Protocol Numbers").
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolGRE     = 47
	ProtocolESP     = 50
	ProtocolAH      = 51
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// IPv6 extension headers (IANA, "IPv6 Extension Header Types").
const (
	headerHopByHop    = 0
	headerRouting     = 43
	headerFragment    = 44
	headerNoNext      = 59
	headerDestination = 60
	headerMobility    = 135
	headerHIP         = 139
	headerShim6       = 140
)

// HasPorts reports whether the protocol's header begins with a source and a
// destination port of 16 bits each.
func HasPorts(protocol uint8) bool {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolDCCP, ProtocolSCTP, ProtocolUDPLite:
		return true
	}
	return false
}

// minimumHeader returns the minimum size in bytes of the upper-layer header. For an
// unknown protocol it is one byte, as in the kernel's check of first fragments
// (net/ipv6/reassembly.c, ipv6frag_thdr_truncated).
func minimumHeader(protocol uint8) int {
	switch protocol {
	case ProtocolTCP:
		return 20
	case ProtocolUDP, ProtocolUDPLite, ProtocolICMPv6, ProtocolESP:
		return 8
	case ProtocolSCTP, ProtocolDCCP:
		return 12
	case headerNoNext:
		return 0
	}
	return 1
}
