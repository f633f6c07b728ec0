package rules

import (
	"fmt"
	"maps"
	"slices"
)

// ParseProtocol returns the number that a text says, as in a rule's protocol.
func ParseProtocol(text string) (uint16, error) { return protocols.word(text) }

// ParsePort returns the number that a text says, as in a rule's dst_port.
func ParsePort(text string) (uint16, error) { return ports.word(text) }

// ParseICMPType returns the number that a text says, as in a rule's icmp_type
// with protocol icmp.
func ParseICMPType(text string) (uint16, error) { return icmpTypes.word(text) }

// ParseICMPv6Type returns the number that a text says, as in a rule's
// icmp_type with protocol icmpv6.
func ParseICMPv6Type(text string) (uint16, error) { return icmpv6Types.word(text) }

// ParseICMPCode returns the number that a text says, as in a rule's icmp_code.
func ParseICMPCode(text string) (uint16, error) { return icmpCodes.word(text) }

// ParseVLAN returns the identifier that a text says, as in a rule's vlan; 0 is
// "none".
func ParseVLAN(text string) (uint16, error) { return vlanIDs.word(text) }

// word returns the one number that a text says.
func (s scale) word(text string) (uint16, error) {
	n, err := s.parseOne(text)
	if err == nil && n.Lo != n.Hi {
		err = fmt.Errorf("%s is a range; want one number", quote(text))
	}
	return uint16(n.Lo), err
}

// ProtocolNames returns the names that [ParseProtocol] knows, the common one of
// each protocol first.
func ProtocolNames() []string {
	names := make([]string, len(protocolNames))
	for i, p := range protocolNames {
		names[i] = p.name
	}
	return names
}

// ICMPTypeNames returns the names of the types of ICMP and ICMPv6, in order.
func ICMPTypeNames() []string { return slices.Sorted(maps.Keys(eitherICMPTypes.names)) }
