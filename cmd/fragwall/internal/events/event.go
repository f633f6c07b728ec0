package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// Event is one decision as it is logged: what happened, to which datagram, and
// why. A field that the frame does not have, or that could not be read, is
// left out.
type Event struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"` // "drop", "match" of a rule with log = true, or "link"
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
	// Identification is that of fragments; Offset, in bytes, and MoreFragments
	// are of one that was decided on by itself.
	Identification *uint32 `json:"identification,omitempty"`
	Offset         *int    `json:"offset,omitempty"`
	MoreFragments  *bool   `json:"more_fragments,omitempty"`
	// Missing is which bytes of an incomplete datagram did not come, such as
	// "1448-2895", or "2896-" where its end is not known.
	Missing []string `json:"missing,omitempty"`
	Bytes   int      `json:"bytes"` // of all frames
	// Length is that of a packet which exceeds MTU, that of the other side.
	Length    int    `json:"length,omitempty"`
	MTU       int    `json:"mtu,omitempty"`
	Action    string `json:"action,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Rule      string `json:"rule,omitempty"`
	OverLimit string `json:"over_limit,omitempty"` // the rule that matched beyond its limit
	// Device and Link are of an event of kind "link": a NIC, or a TAP where the side
	// has none, and "up" or "down".
	Device string `json:"device,omitempty"`
	Link   string `json:"link,omitempty"`
	// Background is the protocol of what every host sends by itself to all others
	// on its link, such as "mld" or "mdns".
	Background string `json:"background,omitempty"`
	// Suppressed is how many of the same kind, reason, rule and background there
	// were since the last that was logged.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// newEvent copies what an event has of a decision.
func newEvent(kind kind, back background, d *wire.Decision, at time.Time) Event {
	p := d.Parsed()
	e := Event{
		Time: at, Kind: kindNames[kind], From: d.From.String(), Background: backgroundNames[back],
		Fragments: d.Fragments, Bytes: d.Bytes(), Length: d.Length, MTU: d.Limit, Action: d.Verdict.Action.String(),
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
	case p.Upper > 0: // an IPv6 fragment other than the first does not say
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
	if d.Verdict.Action != verdict.Accept {
		e.Reason = d.Verdict.Reason.String()
	}
	if rule := d.Rule(); rule != nil {
		e.Rule = rule.Name
	}
	if rule := d.OverLimit(); rule != nil {
		e.OverLimit = rule.Name
	}
	e.addFragment(d)
	return e
}

// mostMissing is how many ranges of missing bytes an event has.
const mostMissing = 16

// addFragment adds what fragments say of themselves, and what of their datagram
// is missing.
func (e *Event) addFragment(d *wire.Decision) {
	f := d.Fragment()
	if !f.Present {
		return
	}
	e.Identification = &f.ID
	if d.Fragments == 1 {
		e.Offset, e.MoreFragments = &f.Offset, &f.More
	}
	switch d.Verdict.Reason {
	case verdict.FragmentTimeout, verdict.FragmentEvicted, verdict.FragmentSuperseded, verdict.FragmentShutdown:
	default:
		return
	}
	for i, gap := range d.Missing() {
		switch {
		case i == mostMissing:
			e.Missing = append(e.Missing, "and more")
			return
		case gap.End == 0:
			e.Missing = append(e.Missing, fmt.Sprintf("%d-", gap.Start))
		default:
			e.Missing = append(e.Missing, fmt.Sprintf("%d-%d", gap.Start, gap.End-1))
		}
	}
}

// log writes the event as a record of its time.
func (e *Event) log(to slog.Handler) error {
	if e.Link != "" {
		return e.logLink(to)
	}
	r := slog.NewRecord(e.Time, slog.LevelInfo, e.Kind, 0)
	r.AddAttrs(slog.String("from", e.From))
	if len(e.VLANs) > 0 {
		r.AddAttrs(slog.Any("vlans", e.VLANs))
	}
	text := func(key, value string) { addText(&r, key, value) }
	text("protocol", e.Protocol)
	text("src", e.Src)
	addNumber(&r, "sport", e.SrcPort)
	text("dst", e.Dst)
	addNumber(&r, "dport", e.DstPort)
	addNumber(&r, "icmp_type", e.ICMPType)
	addNumber(&r, "icmp_code", e.ICMPCode)
	r.AddAttrs(slog.Int("fragments", e.Fragments))
	addNumber(&r, "identification", e.Identification)
	addNumber(&r, "offset", e.Offset)
	if e.MoreFragments != nil {
		r.AddAttrs(slog.Bool("more_fragments", *e.MoreFragments))
	}
	if len(e.Missing) > 0 {
		r.AddAttrs(slog.Any("missing", e.Missing))
	}
	r.AddAttrs(slog.Int("bytes", e.Bytes), slog.String("action", e.Action))
	text("reason", e.Reason)
	if e.MTU > 0 {
		r.AddAttrs(slog.Int("length", e.Length), slog.Int("mtu", e.MTU))
	}
	text("rule", e.Rule)
	text("over_limit", e.OverLimit)
	text("background", e.Background)
	if e.Suppressed > 0 {
		r.AddAttrs(slog.Uint64("suppressed", e.Suppressed))
	}
	return to.Handle(context.Background(), r)
}

// logLink writes an event of a link: that there is none is a warning.
func (e *Event) logLink(to slog.Handler) error {
	level := slog.LevelInfo
	if e.Link != "up" {
		level = slog.LevelWarn
	}
	if !to.Enabled(context.Background(), level) {
		return nil
	}
	r := slog.NewRecord(e.Time, level, e.Kind, 0)
	r.AddAttrs(slog.String("from", e.From), slog.String("device", e.Device), slog.String("link", e.Link))
	return to.Handle(context.Background(), r)
}

// logCount writes how many events of the same kind, reason, rule and background
// were suppressed.
func (e *Event) logCount(to slog.Handler) error {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, "suppressed", 0)
	r.AddAttrs(slog.String("kind", e.Kind))
	addText(&r, "reason", e.Reason)
	addText(&r, "rule", e.Rule)
	addText(&r, "background", e.Background)
	r.AddAttrs(slog.Uint64("suppressed", e.Suppressed))
	return to.Handle(context.Background(), r)
}

func addText(r *slog.Record, key, value string) {
	if value != "" {
		r.AddAttrs(slog.String(key, value))
	}
}

func addNumber[T uint8 | uint16 | uint32 | int](r *slog.Record, key string, value *T) {
	if value != nil {
		r.AddAttrs(slog.Int(key, int(*value)))
	}
}
