package packet

// Sizes in bytes: of headers without tags, options and extensions, and of a MAC
// address (IEEE 802.3 §3.2, RFC 791 §3.1, RFC 8200 §3 and §4.5, RFC 9293 §3.1,
// RFC 768, RFC 9260 §3.1).
const (
	SizeMAC            = 6
	SizeEthernet       = 14
	SizeIPv4           = 20
	SizeIPv6           = 40
	SizeFragmentHeader = 8
	SizeTCP            = 20
	SizeUDP            = 8
	SizeSCTP           = 12
)

// EtherTypes that the decoder knows (IANA, "IEEE 802 Numbers").
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd
)

// Types of ICMP messages (IANA, "ICMP Type Numbers" and "ICMPv6 Parameters").
const (
	ICMPDestinationUnreachable = 3
	ICMPSourceQuench           = 4
	ICMPRedirect               = 5
	ICMPTimeExceeded           = 11
	ICMPParameterProblem       = 12

	ICMPv6DestinationUnreachable = 1
	ICMPv6FirstInformational     = 128 // smaller ones are errors (RFC 4443 §2.1)
	ICMPv6RouterSolicitation     = 133 // the first type of neighbour discovery (RFC 4861 §4)
	ICMPv6Redirect               = 137 // the last one
)

const (
	versionIPv4 = 4
	versionIPv6 = 6
)
