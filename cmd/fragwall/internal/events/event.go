package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/rules"
	"fragwall/wire"
)

// Event is one decision as it is told: what happened, to which datagram, and
// why. A field that the frame does not have, or that could not be read, is
// left out.
type Event struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"` // "drop", or "match" of a rule with log = true
	From      string    `json:"from"` // the side
	VLANs     []uint16  `json:"vlans,omitempty"`
	Protocol  string    `json:"protocol,omitempty"` // or the EtherType of what is not IP
	Src       string    `json:"src,omitempty"`
	SrcPort   *uint16   `json:"sport,omitempty"`
	Dst       string    `json:"dst,omitempty"`
	DstPort   *uint16   `json:"dport,omitempty"`
	ICMPType  *uint8    `json:"icmp_type,omitempty"`
	ICMPCode  *uint8    `json:"icmp_code,omitempty"`
	Fragments int       `json:"fragments"` // 0: a whole packet
	Bytes     int       `json:"bytes"`     // of all frames
	Action    string    `json:"action"`
	Reason    string    `json:"reason,omitempty"`
	Rule      string    `json:"rule,omitempty"`
	// Suppressed is how many of the kind there were since the last that was told.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// newEvent copies what an event tells of a decision.
func newEvent(kind kind, d *wire.Decision, at time.Time) Event {
	p := d.Parsed()
	e := Event{
		Time: at, Kind: kindNames[kind], From: d.From.String(),
		Fragments: d.Fragments, Bytes: d.Bytes(), Action: d.Verdict.Action.String(),
	}
	vlans := p.VLANs()
	for _, vlan := range vlans[:vlans.Len()] {
		e.VLANs = append(e.VLANs, vlan.VID())
	}
	switch {
	case p.Kind == packet.ARP:
		e.Protocol = "arp"
	case p.Kind == packet.NonIP && p.Network > 0:
		e.Protocol = fmt.Sprintf("%#04x", p.EtherType)
	case p.Upper > 0: // an IPv6 fragment other than the first does not tell
		e.Protocol = rules.ProtocolName(p.Protocol)
	}
	if p.Src.IsValid() {
		e.Src, e.Dst = p.Src.String(), p.Dst.String()
	}
	switch src, dst, icmp, code := p.SrcPort, p.DstPort, p.ICMPType, p.ICMPCode; p.Transport {
	case packet.Ports:
		e.SrcPort, e.DstPort = &src, &dst
	case packet.ICMP:
		e.ICMPType, e.ICMPCode = &icmp, &code
	}
	if d.Verdict.Action != filter.Accept {
		e.Reason = d.Verdict.Reason.String()
	}
	if d.Verdict.Rule != nil {
		e.Rule = d.Verdict.Rule.Name
	}
	return e
}

// log writes the event as a record of its time.
func (e *Event) log(to slog.Handler) error {
	r := slog.NewRecord(e.Time, slog.LevelInfo, e.Kind, 0)
	r.AddAttrs(slog.String("from", e.From))
	if len(e.VLANs) > 0 {
		r.AddAttrs(slog.Any("vlans", e.VLANs))
	}
	text := func(key, value string) {
		if value != "" {
			r.AddAttrs(slog.String(key, value))
		}
	}
	text("protocol", e.Protocol)
	text("src", e.Src)
	addNumber(&r, "sport", e.SrcPort)
	text("dst", e.Dst)
	addNumber(&r, "dport", e.DstPort)
	addNumber(&r, "icmp_type", e.ICMPType)
	addNumber(&r, "icmp_code", e.ICMPCode)
	r.AddAttrs(slog.Int("fragments", e.Fragments), slog.Int("bytes", e.Bytes), slog.String("action", e.Action))
	text("reason", e.Reason)
	text("rule", e.Rule)
	if e.Suppressed > 0 {
		r.AddAttrs(slog.Uint64("suppressed", e.Suppressed))
	}
	return to.Handle(context.Background(), r)
}

func addNumber[T uint8 | uint16](r *slog.Record, key string, value *T) {
	if value != nil {
		r.AddAttrs(slog.Int(key, int(*value)))
	}
}
