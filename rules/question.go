package rules

import (
	"errors"
	"fmt"
	"net/netip"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Question is a datagram to ask a policy about: its fields by their keys in an
// expectation. A value is a string, or a boolean for the last two keys.
type Question map[string]any

// questionKeys are the keys of a question. The first four are required.
var questionKeys = []string{
	"from", "protocol", "src", "dst",
	"src_port", "dst_port", "icmp_type", "icmp_code", "vlan", "fragmented", "source_route",
}

// QuestionDefaults are the values of keys that a question does not have.
var QuestionDefaults = map[string]string{
	"src_port": "49152", "dst_port": "0", "icmp_type": "echo-request", "icmp_code": "0", "vlan": "none",
}

// Datagram returns the datagram of the question, or everything that is wrong with the
// question. called has the names of keys in messages, if they differ.
func (q Question) Datagram(called map[string]string) (*packet.View, error) {
	r := &report{}
	d := table{report: r, values: q, place: &place{}, called: called}.datagram()
	wrong := (*Errors)(nil)
	if !errors.As(r.err(), &wrong) {
		return d, nil
	}
	errs := make([]error, len(wrong.Mistakes))
	for i, m := range wrong.Mistakes {
		errs[i] = errors.New(m.Text)
	}
	return nil, errors.Join(errs...)
}

// datagram reads the datagram of a question. The result is valid only if no mistake was
// reported.
func (t table) datagram() *packet.View {
	// Neighbour discovery has this hop limit (RFC 4861 §7.1). No rule matches it.
	p := &packet.Parsed{HopLimit: 255}
	d := &packet.View{Parsed: p, From: t.field("from").side()}
	protocol, known := t.field("protocol").one(protocols, `protocol = "udp"`)
	p.Protocol = uint8(protocol)
	var srcOK, dstOK bool
	p.Src, srcOK = t.field("src").address("10.0.0.1")
	p.Dst, dstOK = t.field("dst").address("192.0.2.1")
	if id := t.optional("vlan", vlanIDs); id != untagged {
		p.TagCount, p.Tags[0] = 1, packet.Tag{TPID: 0x8100, TCI: id}
	}
	p.Fragmented, p.SourceRoute = t.field("fragmented").boolean(false), t.field("source_route").boolean(false)
	if srcOK && dstOK && p.Src.Is4() != p.Dst.Is4() {
		dst := t.field("dst")
		dst.fail("%s is not of the same family as %s %s; want both IPv4 or both IPv6", p.Dst, t.field("src").name, p.Src)
		dstOK = false
	}
	if !known || !srcOK || !dstOK {
		// It is unknown which of these the datagram has, but their values can be checked.
		t.optional("src_port", ports)
		t.optional("dst_port", ports)
		t.optional("icmp_type", eitherICMPTypes)
		t.optional("icmp_code", icmpCodes)
		return d
	}
	if p.Kind = packet.IPv6; p.Src.Is4() {
		p.Kind = packet.IPv4
	}
	t.transport(p)
	return d
}

// transport reads the fields of the transport header, and reports those that the protocol
// does not have.
func (t table) transport(p *packet.Parsed) {
	switch {
	case packet.HasPorts(p.Protocol):
		p.Transport = packet.Ports
		p.SrcPort, p.DstPort = t.optional("src_port", ports), t.optional("dst_port", ports)
	case p.Kind == packet.IPv4 && p.Protocol == packet.ProtocolICMP:
		p.Transport = packet.ICMP
		p.ICMPType = uint8(t.optional("icmp_type", icmpTypes))
	case p.Kind == packet.IPv6 && p.Protocol == packet.ProtocolICMPv6:
		p.Transport = packet.ICMP
		p.ICMPType = uint8(t.optional("icmp_type", icmpv6Types))
	}
	if p.Transport == packet.ICMP {
		p.ICMPCode = uint8(t.optional("icmp_code", icmpCodes))
	} else {
		t.absent("needs protocol \"icmp\" between IPv4 addresses, or \"icmpv6\" between IPv6 addresses; remove it, or change the protocol", "icmp_type", "icmp_code")
	}
	if p.Transport != packet.Ports {
		t.absent(fmt.Sprintf("protocol %s has no ports; remove it", protocolName(int64(p.Protocol))), "src_port", "dst_port")
	}
}

// absent reports keys that must not be set, with the reason.
func (t table) absent(why string, keys ...string) {
	for _, key := range keys {
		if f := t.field(key); f.set() {
			f.fail("%s", why)
		}
	}
}

// side returns the side that the field names. The field is required.
func (f field) side() verdict.Side {
	inside, outside := verdict.Inside.String(), verdict.Outside.String()
	if !f.set() {
		f.fail("missing; add from = %q or from = %q", inside, outside)
	}
	if f.choice(inside, []string{inside, outside}) == outside {
		return verdict.Outside
	}
	return verdict.Inside
}

// one returns the field's number. The field is required; the example is for messages. It
// reports whether the field is valid.
func (f field) one(s scale, example string) (uint16, bool) {
	if !f.set() {
		f.fail("missing; add %s", example)
		return 0, false
	}
	n, err := s.one(f.value)
	if err != nil {
		f.fail("%v", err)
	}
	return n, err == nil
}

// optional returns the number of a key, or its default.
func (t table) optional(key string, s scale) uint16 {
	f := t.field(key)
	if !f.set() {
		f.value = QuestionDefaults[key]
	}
	n, _ := f.one(s, "")
	return n
}

// address returns the field's address. The field is required; the example is for
// messages. It reports whether the field is valid.
func (f field) address(example string) (netip.Addr, bool) {
	text, isText := f.value.(string)
	a, err := netip.ParseAddr(text)
	switch {
	case !f.set():
		f.fail("missing; add %s = %q", f.name, example)
	case !isText:
		f.fail("%s; want an address in a string, such as %q", f.kind(), example)
	case err != nil:
		f.fail("%s is not an address; want one such as %q", quote(text), example)
	default:
		if err := checkAddress(a); err != nil {
			f.fail("%v", err)
			return a, false
		}
		return a, true
	}
	return a, false
}
