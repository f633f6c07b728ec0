package explain

import (
	"errors"
	"fmt"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Question is the datagram that is asked about, as the flags of the command say it.
type Question struct {
	From, Protocol, Src, Dst, VLAN       string
	SrcPort, DstPort, ICMPType, ICMPCode string // of the protocols that have them
	Fragmented, SourceRoute              bool
}

// Datagram returns the datagram, or what is wrong with the flags. given says which of
// them the user gave.
func (q *Question) Datagram(given func(flag string) bool) (*packet.View, error) {
	for _, flag := range []string{"from", "proto", "src", "dst"} {
		if !given(flag) {
			return nil, fmt.Errorf("--%s is missing", flag)
		}
	}
	// No other hop limit is neighbour discovery's (RFC 4861 §7.1), and to all
	// else it makes no difference.
	p := &packet.Parsed{Fragmented: q.Fragmented, SourceRoute: q.SourceRoute, HopLimit: 255}
	d := &packet.View{Parsed: p}
	switch q.From {
	case verdict.Inside.String():
	case verdict.Outside.String():
		d.From = verdict.Outside
	default:
		return nil, fmt.Errorf("--from: %q is no side; want \"inside\" or \"outside\"", q.From)
	}
	var errs []error
	number := func(flag, text string, scale func(string) (uint16, error)) uint16 {
		n, err := scale(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return n
	}
	address := func(flag, text string) netip.Addr {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--%s: %q is no address", flag, text))
		case a.Zone() != "" || a.Is4In6():
			errs = append(errs, fmt.Errorf("--%s: %q is not what packets carry; did you mean %q?", flag, text, a.WithZone("").Unmap()))
		}
		return a
	}
	p.Src, p.Dst = address("src", q.Src), address("dst", q.Dst)
	p.Protocol = uint8(number("proto", q.Protocol, rules.ParseProtocol))
	if vid := number("vlan", q.VLAN, rules.ParseVLAN); vid != 0 {
		p.TagCount, p.Tags[0] = 1, packet.Tag{TPID: 0x8100, TCI: vid}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if p.Src.Is4() != p.Dst.Is4() {
		return nil, fmt.Errorf("--src %s and --dst %s are of two families", p.Src, p.Dst)
	}
	if p.Kind = packet.IPv6; p.Src.Is4() {
		p.Kind = packet.IPv4
	}
	q.transport(p, number)
	if err := checkTransport(p, given); err != nil {
		return nil, err
	}
	return d, errors.Join(errs...)
}

// transport fills in the fields of the transport header.
func (q *Question) transport(p *packet.Parsed, number func(flag, text string, scale func(string) (uint16, error)) uint16) {
	switch {
	case packet.HasPorts(p.Protocol):
		p.Transport = packet.Ports
		p.SrcPort = number("sport", q.SrcPort, rules.ParsePort)
		p.DstPort = number("dport", q.DstPort, rules.ParsePort)
	case p.Kind == packet.IPv4 && p.Protocol == packet.ProtocolICMP, p.Kind == packet.IPv6 && p.Protocol == packet.ProtocolICMPv6:
		p.Transport = packet.ICMP
		types := rules.ParseICMPType
		if p.Kind == packet.IPv6 {
			types = rules.ParseICMPv6Type
		}
		p.ICMPType = uint8(number("icmp-type", q.ICMPType, types))
		p.ICMPCode = uint8(number("icmp-code", q.ICMPCode, rules.ParseICMPCode))
	}
}

// checkTransport refuses fields that the protocol doesn't have.
func checkTransport(p *packet.Parsed, given func(flag string) bool) error {
	for _, flag := range []string{"sport", "dport"} {
		if given(flag) && p.Transport != packet.Ports {
			return fmt.Errorf("--%s: protocol %d has no ports", flag, p.Protocol)
		}
	}
	for _, flag := range []string{"icmp-type", "icmp-code"} {
		if given(flag) && p.Transport != packet.ICMP {
			return fmt.Errorf("--%s: protocol %d between addresses of this family is no ICMP", flag, p.Protocol)
		}
	}
	return nil
}
