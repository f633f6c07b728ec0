package listing

import (
	"net/netip"
	"time"

	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/rules"
)

// Flow is a flow that the policy accepted. Source and destination are those of its first
// datagram. Datagrams in that direction are the original ones, the others are replies, as in
// conntrack(8).
type Flow struct {
	From     string     `json:"from"` // side of the originator
	VLANs    []uint16   `json:"vlans,omitempty"`
	Protocol string     `json:"protocol"`
	Src      netip.Addr `json:"src"`
	SrcPort  *uint16    `json:"sport,omitempty"`
	Dst      netip.Addr `json:"dst"`
	DstPort  *uint16    `json:"dport,omitempty"`
	ICMPType *uint8     `json:"icmp_type,omitempty"` // type of the query
	ICMPCode *uint8     `json:"icmp_code,omitempty"`
	ICMPID   *uint16    `json:"icmp_id,omitempty"`

	// State is the state of a TCP connection or an SCTP association. For other protocols it is
	// UNREPLIED, SEEN_REPLY or ASSURED.
	State   string `json:"state"`
	Replied bool   `json:"replied"` // whether the responder has sent
	Assured bool   `json:"assured"`
	// Denied is set if the policy in force does not accept what an earlier policy accepted.
	// Nothing passes until it accepts a datagram of the originator.
	Denied bool `json:"denied,omitempty"`

	Age     float64 `json:"age_seconds"`
	Idle    float64 `json:"idle_seconds"`
	Expires float64 `json:"expires_seconds"` // if no further datagram arrives

	OriginalPackets uint64 `json:"original_packets"`
	OriginalBytes   uint64 `json:"original_bytes"`
	ReplyPackets    uint64 `json:"reply_packets"`
	ReplyBytes      uint64 `json:"reply_bytes"`

	Rule string `json:"rule,omitempty"` // "" if the default decided
	Line int    `json:"line,omitempty"`
	// FastPath is set while the kernel forwards the flow.
	FastPath bool `json:"fast_path"`
}

// Names of flow states for protocols without states of their own, as in the --status option of
// conntrack(8).
const (
	stateUnreplied = "UNREPLIED"
	stateReplied   = "SEEN_REPLY"
	stateAssured   = "ASSURED"
)

// stateOf returns the name of a flow's state.
func stateOf(f *flow.Flow) string {
	switch {
	case f.State != flow.Unreplied && f.State != flow.Replied && f.State != flow.Query && f.State != flow.Generic:
		return f.State.String()
	case f.Assured():
		return stateAssured
	case f.Replied():
		return stateReplied
	}
	return stateUnreplied
}

// FlowOf returns the record of a flow. f is a copy of the flow, and table the one that judges
// it.
func FlowOf(f *flow.Flow, table *filter.Table, now time.Duration) (r Flow) {
	var p packet.Parsed
	f.First(&p)
	r.set(f, &p, table, now)
	return r
}

// set sets all fields. p is the first datagram of the flow.
func (r *Flow) set(f *flow.Flow, p *packet.Parsed, table *filter.Table, now time.Duration) {
	original, reply := f.Sent(f.Origin), f.Sent(f.Origin.Other())
	*r = Flow{
		From: f.Origin.String(), VLANs: vlanIDs(p), Protocol: rules.ProtocolName(p.Protocol), Src: p.Src, Dst: p.Dst,
		State: stateOf(f), Replied: f.Replied(), Assured: f.Assured(),
		Age: seconds(f.Age(now)), Idle: seconds(f.Idle(now)), Expires: seconds(f.Expires(now)),
		FastPath:        f.Fast(),
		OriginalPackets: original.Packets, OriginalBytes: original.Bytes, ReplyPackets: reply.Packets, ReplyBytes: reply.Bytes,
	}
	switch p.Transport {
	case packet.Ports:
		r.SrcPort, r.DstPort = number16(p.SrcPort), number16(p.DstPort)
	case packet.ICMP:
		id, _ := f.QueryID()
		r.ICMPType, r.ICMPCode, r.ICMPID = number8(p.ICMPType), number8(p.ICMPCode), number16(id)
	}
	rule, denied := table.RuleOf(f)
	r.Denied = denied
	if rule != nil {
		r.Rule, r.Line = rule.Name, rule.Line
	}
}

// tupleOf returns the fields of a flow that a selector matches. It decodes the first datagram
// into p.
func tupleOf(f *flow.Flow, p *packet.Parsed) selector.Tuple {
	f.First(p)
	t := selector.TupleOf(p, f.Origin)
	t.HasProtocol = true
	return t
}

// vlanIDs returns the VLAN IDs of a frame, outermost first.
func vlanIDs(p *packet.Parsed) (ids []uint16) {
	if p.TagCount == 0 {
		return nil
	}
	vlans := p.VLANs()
	for _, vlan := range vlans[:vlans.Len()] {
		ids = append(ids, vlan.VID())
	}
	return ids
}

// seconds returns a duration in seconds, rounded down to milliseconds.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// numbers are all 16-bit numbers. An optional field points into it, which avoids an allocation.
var numbers = func() (all [1 << 16]uint16) {
	for i := range all {
		all[i] = uint16(i)
	}
	return all
}()

func number16(n uint16) *uint16 { return &numbers[n] }

func number8(n uint8) *uint8 { return &smallNumbers[n] }

var smallNumbers = func() (all [1 << 8]uint8) {
	for i := range all {
		all[i] = uint8(i)
	}
	return all
}()
