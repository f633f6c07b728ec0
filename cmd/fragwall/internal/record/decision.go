package record

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// Decision is a decision as users see it: the datagram, the verdict and the reason. The JSON
// omits fields that do not apply or could not be read.
type Decision struct {
	Time time.Time `json:"time"` // of the decision
	From string    `json:"from"` // ingress side

	Verdict   string `json:"verdict"`              // "accept", "drop" or "reject"
	Reason    string `json:"reason,omitempty"`     // for a drop or reject
	Rule      string `json:"rule,omitempty"`       // rule that decided
	Line      int    `json:"line,omitempty"`       // line of the rule in its file
	OverLimit string `json:"over_limit,omitempty"` // first rule that matched except for its limit

	VLANs     []uint16         `json:"vlans,omitempty"`     // VLAN IDs, outermost first
	EtherType string           `json:"ethertype,omitempty"` // if it is neither IP nor ARP
	Protocol  string           `json:"protocol,omitempty"`
	Src       netip.Addr       `json:"src,omitzero"`
	SrcPort   Optional[uint16] `json:"sport,omitzero"`
	Dst       netip.Addr       `json:"dst,omitzero"`
	DstPort   Optional[uint16] `json:"dport,omitzero"`
	ICMPType  Optional[uint8]  `json:"icmp_type,omitzero"`
	ICMPCode  Optional[uint8]  `json:"icmp_code,omitzero"`

	Fragments int `json:"fragments"` // 0 for a whole packet
	// Identification is set for fragments. Offset, in bytes, and MoreFragments are set for a
	// fragment that was decided on by itself.
	Identification Optional[uint32] `json:"identification,omitzero"`
	Offset         Optional[int]    `json:"offset,omitzero"`
	MoreFragments  Optional[bool]   `json:"more_fragments,omitzero"`
	// Missing are the byte ranges of an incomplete datagram that did not arrive, such as
	// "1448-2895", or "2896-" if the end is not known.
	Missing []string `json:"missing,omitempty"`
	Bytes   int      `json:"bytes"` // length of all frames together
	// Length is the length of a packet that exceeds the MTU of the egress side, in bytes.
	Length int `json:"length,omitempty"`
	MTU    int `json:"mtu,omitempty"`
}

// Of returns the record of a decision. at is the time of the decision.
func Of(d *wire.Decision, at time.Time) Decision {
	r := Decision{
		Time: at, From: d.From.String(), Verdict: d.Verdict.Action.String(),
		Fragments: d.Fragments, Bytes: d.Bytes(), Length: d.Length, MTU: d.Limit,
	}
	if d.Verdict.Action != verdict.Accept {
		r.Reason = d.Verdict.Reason.String()
	}
	if rule := d.Rule(); rule != nil {
		r.Rule, r.Line = rule.Name, rule.Line
	}
	if rule := d.OverLimit(); rule != nil {
		r.OverLimit = rule.Name
	}
	r.setPacket(d.Parsed())
	r.setFragment(d)
	return r
}

// setPacket sets the fields that were decoded from the packet.
func (r *Decision) setPacket(p *packet.Parsed) {
	vlans := p.VLANs()
	for _, vlan := range vlans[:vlans.Len()] {
		r.VLANs = append(r.VLANs, vlan.VID())
	}
	switch {
	case p.Kind == packet.ARP:
		r.Protocol = "arp"
	case p.Kind == packet.NonIP && p.Network > 0:
		r.EtherType = fmt.Sprintf("%#04x", p.EtherType)
	case p.Upper > 0: // an IPv6 fragment other than the first does not contain it
		r.Protocol = rules.ProtocolName(p.Protocol)
	}
	r.Src, r.Dst = p.Src, p.Dst
	switch p.Transport {
	case packet.Ports:
		r.SrcPort, r.DstPort = Some(p.SrcPort), Some(p.DstPort)
	case packet.ICMP:
		r.ICMPType, r.ICMPCode = Some(p.ICMPType), Some(p.ICMPCode)
	}
}

// mostMissing is the maximum number of missing ranges in a record.
const mostMissing = 16

// setFragment sets the fields about fragments, and the missing ranges.
func (r *Decision) setFragment(d *wire.Decision) {
	f := d.Fragment()
	if !f.Present {
		return
	}
	r.Identification = Some(f.ID)
	if d.Fragments == 1 {
		r.Offset, r.MoreFragments = Some(f.Offset), Some(f.More)
	}
	switch d.Verdict.Reason {
	case verdict.FragmentTimeout, verdict.FragmentEvicted, verdict.FragmentSuperseded, verdict.FragmentShutdown:
	default:
		return
	}
	for i, gap := range d.Missing() {
		switch {
		case i == mostMissing:
			r.Missing = append(r.Missing, "and more")
			return
		case gap.End == 0:
			r.Missing = append(r.Missing, fmt.Sprintf("%d-", gap.Start))
		default:
			r.Missing = append(r.Missing, fmt.Sprintf("%d-%d", gap.Start, gap.End-1))
		}
	}
}

// Field receives the name and the value of a field.
type Field func(name string, value slog.Value)

// Each calls field for each field that applies, in order, except for the time, which every log
// record has anyway. Values are valid until field returns.
func (r *Decision) Each(field Field) {
	field("from", slog.StringValue(r.From))
	field("verdict", slog.StringValue(r.Verdict))
	field.text("reason", r.Reason)
	field.text("rule", r.Rule)
	field.positive("line", r.Line)
	field.text("over_limit", r.OverLimit)
	if len(r.VLANs) > 0 {
		field("vlans", slog.AnyValue(r.VLANs))
	}
	field.text("ethertype", r.EtherType)
	field.text("protocol", r.Protocol)
	field.address("src", &r.Src)
	number(field, "sport", r.SrcPort)
	field.address("dst", &r.Dst)
	number(field, "dport", r.DstPort)
	number(field, "icmp_type", r.ICMPType)
	number(field, "icmp_code", r.ICMPCode)
	field("fragments", slog.IntValue(r.Fragments))
	number(field, "identification", r.Identification)
	number(field, "offset", r.Offset)
	if r.MoreFragments.Set {
		field("more_fragments", slog.BoolValue(r.MoreFragments.Value))
	}
	if len(r.Missing) > 0 {
		field("missing", slog.AnyValue(r.Missing))
	}
	field("bytes", slog.IntValue(r.Bytes))
	field.positive("length", r.Length)
	field.positive("mtu", r.MTU)
}

func (f Field) text(name, value string) {
	if value != "" {
		f(name, slog.StringValue(value))
	}
}

func (f Field) positive(name string, value int) {
	if value > 0 {
		f(name, slog.IntValue(value))
	}
}

// address takes a pointer, because an [netip.Addr] in an interface would be allocated.
func (f Field) address(name string, value *netip.Addr) {
	if value.IsValid() {
		f(name, slog.AnyValue(value))
	}
}

func number[T uint8 | uint16 | uint32 | int](f Field, name string, value Optional[T]) {
	if value.Set {
		f(name, slog.IntValue(int(value.Value)))
	}
}
