package rules

import (
	"fmt"
	"net/netip"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Remarks returns notes, by line, that need the whole policy: on rules that never decide, or
// only beyond the limit of another rule, and on accepted requests whose replies are not
// accepted.
func (c *Config) Remarks() []Note {
	table := filter.Compile(c.Policy, nil)
	answers := c.answers(table)
	var notes []Note
	for i := range c.Policy.Rules {
		r := &c.Policy.Rules[i]
		by := table.ShadowOf(i)
		switch {
		case by == nil:
		case by.Limit == filter.Rate{}:
			notes = append(notes, c.remark(r, "never decides: rule %q at line %d matches all datagrams that it matches", by.Name, by.Line))
		default:
			notes = append(notes, c.remark(r, "decides only beyond the limit of rule %q at line %d, which matches all datagrams that it matches", by.Name, by.Line))
		}
		if answers != nil && answers.Line == r.Line {
			notes = append(notes, *answers)
		}
	}
	return notes
}

func (c *Config) remark(r *filter.Rule, format string, args ...any) Note {
	return Note{File: c.File, Line: r.Line, Text: fmt.Sprintf("rule %q "+format, append([]any{r.Name}, args...)...)}
}

// answers returns a note on the first rule of a stateless policy that accepts a request but not
// its reply, and on the number of further ones. It returns nil if there is none.
func (c *Config) answers(table *filter.Table) *Note {
	if c.Policy.Stateful {
		return nil
	}
	// The time advances so far that no limit is ever reached.
	now := time.Duration(0)
	clock := func() time.Duration { now += 24 * time.Hour; return now }
	var note *Note
	var first *filter.Rule
	more := 0
	for i := range c.Policy.Rules {
		r := &c.Policy.Rules[i]
		question, ok := questionOf(r)
		if !ok || table.Rule(table.Judge(question, clock).Rule) != r {
			continue
		}
		answer := answerTo(question)
		v := table.Judge(answer, clock)
		switch {
		case v.Action == verdict.Accept:
		case first != nil:
			more++
		default:
			first = r
			by := "policy.default"
			if rule := table.Rule(v.Rule); rule != nil {
				by = fmt.Sprintf("rule %q at line %d", rule.Name, rule.Line)
			}
			n := c.remark(r, "accepts %s from %s, but %s drops the reply; add a rule that accepts replies, or set policy.stateful = true",
				datagram(question), question.From, by)
			note = &n
		}
	}
	if more > 0 {
		note.Text += fmt.Sprintf(" (the same is true of %d more)", more)
	}
	return note
}

// answered are the protocols whose requests always have replies, and those of ICMP, whose echo
// requests have.
var answered = []uint8{packet.ProtocolTCP, packet.ProtocolUDP, packet.ProtocolSCTP, packet.ProtocolDCCP, packet.ProtocolICMP, packet.ProtocolICMPv6}

// The echo types (RFC 792, RFC 4443 §4).
const (
	echoReply, echoRequest     = 0, 8
	echoRequestV6, echoReplyV6 = 128, 129
)

// ephemeral is a client's port.
const ephemeral = 49152

// questionOf returns a datagram that the rule accepts and that expects a reply. It reports
// whether there is one.
func questionOf(r *filter.Rule) (*packet.View, bool) {
	if r.Action != verdict.Accept || r.SrcPorts != nil && r.DstPorts == nil {
		return nil, false // a rule with only source ports is for replies
	}
	p := &packet.Parsed{HopLimit: 64}
	v := &packet.View{Parsed: p}
	if r.From != nil {
		v.From = *r.From
	}
	p.Fragmented = r.Fragmented != nil && *r.Fragmented
	if r.VLANs != nil && !r.VLANs.Untagged && len(r.VLANs.IDs) > 0 {
		p.TagCount, p.Tags[0] = 1, packet.Tag{TPID: 0x8100, TCI: r.VLANs.IDs[0].Lo}
	}
	for _, v6 := range []bool{false, true} {
		src, srcOK := hostOf(r.Src, v6, 1)
		dst, dstOK := hostOf(r.Dst, v6, 2)
		if !srcOK || !dstOK {
			continue
		}
		p.Src, p.Dst, p.Kind = src, dst, packet.IPv4
		if v6 {
			p.Kind = packet.IPv6
		}
		for _, p.Protocol = range answered {
			if r.Protocols.Contains(p.Protocol) && asks(p, r) {
				return v, true
			}
		}
	}
	return nil, false
}

// hostOf returns an address of the set, or the one with the given number if the set has
// all addresses.
func hostOf(set filter.AddrSet, v6 bool, number byte) (netip.Addr, bool) {
	if set == nil && v6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: number}), true
	}
	if set == nil {
		return netip.AddrFrom4([4]byte{192, 0, 2, number}), true
	}
	for _, r := range set {
		if r.Lo.Is6() == v6 {
			if r.Lo != r.Hi {
				return r.Lo.Next(), true // the first one may be a network address
			}
			return r.Lo, true
		}
	}
	return netip.Addr{}, false
}

// asks fills in the transport header of a request, and reports whether the rule allows one.
func asks(p *packet.Parsed, r *filter.Rule) bool {
	if p.Protocol != packet.ProtocolICMP && p.Protocol != packet.ProtocolICMPv6 {
		p.Transport = packet.Ports
		p.SrcPort, p.DstPort = portOf(r.SrcPorts, ephemeral), portOf(r.DstPorts, 80)
		return true
	}
	p.Transport, p.ICMPType = packet.ICMP, echoRequest
	if p.Protocol == packet.ProtocolICMPv6 {
		p.ICMPType = echoRequestV6
	}
	return (p.Kind == packet.IPv6) == (p.Protocol == packet.ProtocolICMPv6) && r.ICMPTypes.Contains(p.ICMPType) && r.ICMPCodes.Contains(0)
}

// portOf returns a port of the set, the usual one if the set has it.
func portOf(set filter.Set[uint16], usual uint16) uint16 {
	if len(set) == 0 || set.Contains(usual) {
		return usual
	}
	return set[0].Lo
}

// answerTo returns the reply to a request, as one packet.
func answerTo(question *packet.View) *packet.View {
	p := *question.Parsed
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	p.Fragmented = false
	switch {
	case p.Transport != packet.ICMP:
	case p.Kind == packet.IPv6:
		p.ICMPType = echoReplyV6
	default:
		p.ICMPType = echoReply
	}
	return &packet.View{Parsed: &p, From: question.From.Other()}
}

// datagram describes a question.
func datagram(v *packet.View) string {
	if v.Transport == packet.ICMP {
		return fmt.Sprintf("%s %s > %s, echo request", ProtocolName(v.Protocol), v.Src, v.Dst)
	}
	return fmt.Sprintf("%s %s > %s", ProtocolName(v.Protocol), netip.AddrPortFrom(v.Src, v.SrcPort), netip.AddrPortFrom(v.Dst, v.DstPort))
}
