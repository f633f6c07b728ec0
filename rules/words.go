package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"fragwall/filter"
)

// ParseProtocol returns the protocol number of a text, as in a rule's protocol.
func ParseProtocol(text string) (uint16, error) { return protocols.one(text) }

// ParsePort returns the port of a text, as in a rule's dst_port.
func ParsePort(text string) (uint16, error) { return ports.one(text) }

// ParseVLAN returns the VLAN identifier of a text, as in a rule's vlan; 0 is "none".
func ParseVLAN(text string) (uint16, error) { return vlanIDs.one(text) }

// ParseAddresses returns the addresses of a text, as in a rule's src: an address, a
// prefix or a range.
func ParseAddresses(text string) (filter.Range[netip.Addr], error) { return parseAddresses(text) }

// one returns the number of a decoded value.
func (s scale) one(value any) (uint16, error) {
	s.example = s.exampleOfOne
	switch value.(type) {
	case int64, string:
	default:
		return 0, fmt.Errorf("%s is %s; want one number, or a name in a string", show(value), kindOf(value))
	}
	n, err := s.parseOne(value)
	if err == nil && n.Lo != n.Hi {
		err = fmt.Errorf("%s is a range; want one number", show(value))
	}
	return uint16(n.Lo), err
}

// ProtocolNames returns the names that [ParseProtocol] accepts, the common one of each
// protocol first.
func ProtocolNames() []string {
	names := make([]string, len(protocolNames))
	for i, p := range protocolNames {
		names[i] = p.name
	}
	return names
}

// ICMPTypeNames returns the names of ICMP and ICMPv6 types, in order.
func ICMPTypeNames() []string { return slices.Sorted(maps.Keys(eitherICMPTypes.names)) }
