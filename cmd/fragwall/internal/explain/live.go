package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// LiveAnswer is the decision of a running box on a datagram that would arrive now.
type LiveAnswer struct {
	Answer
	Generation uint32 `json:"generation"` // generation of the policy in force
	// Limits are the limits of the rules that match, up to the rule that decides.
	Limits []Limit `json:"limits,omitempty"`
	// Flow is the flow that the datagram belongs to. Passes is set if the datagram is accepted
	// because of that flow.
	Flow   *listing.Flow `json:"flow,omitempty"`
	Passes bool          `json:"passes_by_flow"`
	// FastPath is the fast path entry for this flow and direction, or nil if there is none.
	FastPath *FastPath `json:"fast_path_entry,omitempty"`

	hasFastPath bool
}

// FastPath is the fast path entry for one direction of a flow.
type FastPath struct {
	Verdict   string  `json:"verdict"`                // "accept" or "drop"
	Reason    string  `json:"reason,omitempty"`       // for a drop
	Rule      string  `json:"rule,omitempty"`         // rule that decided
	Line      int     `json:"line,omitempty"`         // line of the rule
	Whole     bool    `json:"whole"`                  // applies to whole packets
	Fragments bool    `json:"fragments"`              // applies to fragments
	Frames    uint64  `json:"frames"`                 // frames that the entry applied to
	Bytes     uint64  `json:"bytes"`                  // length of these frames
	Idle      float64 `json:"idle_seconds,omitempty"` // since the last of these frames
}

// Limit is the remaining part of a rule's limit.
type Limit struct {
	Rule  string `json:"rule"`
	Line  int    `json:"line"`
	Limit string `json:"limit"`
	Left  int    `json:"left_datagrams"` // datagrams that may match now without waiting
}

// AskLive returns the decision of a running box. config is the configuration in force.
func AskLive(config *rules.Config, box *wire.Bump, d *packet.View) LiveAnswer {
	table, now := box.Policy(), box.Elapsed()
	own := *config
	own.Policy = table.Policy()
	answer, o := (&Policy{&own, table}).ask(d, func() time.Duration { return now })
	a := LiveAnswer{Answer: answer, Generation: table.Generation(), Passes: o.Verdict.Has(filter.OfFlow), hasFastPath: box.HasFastPath()}
	for _, l := range o.Limits {
		rule := table.Rule(l.Rule)
		a.Limits = append(a.Limits, Limit{rule.Name, rule.Line, rule.Limit.String(), l.Left})
	}
	if o.Flow != nil {
		f := listing.FlowOf(o.Flow, table, now)
		a.Flow = &f
	}
	if e, known := box.FastEntry(d); known {
		a.FastPath = fastPathOf(&e, table, now)
	}
	if a.Passes {
		a.Limit, a.Near = "", nil // the rules are not consulted
	}
	a.noteFlow(d, table.Stateful())
	return a
}

// fastPathOf returns the record of an entry.
func fastPathOf(e *wire.FastEntry, table *filter.Table, now time.Duration) *FastPath {
	f := &FastPath{Verdict: e.Action.String(), Whole: e.Whole, Fragments: e.Fragments, Frames: e.Frames, Bytes: e.Bytes}
	if e.Action != verdict.Accept {
		f.Reason = e.Reason.String()
	}
	if rule := table.Rule(e.Rule); rule != nil {
		f.Rule, f.Line = rule.Name, rule.Line
	}
	if e.Frames > 0 {
		f.Idle = max(0, now-e.Seen).Round(time.Millisecond).Seconds()
	}
	return f
}

// noteFlow adds a note if the datagram belongs to no known flow, or if its flow or entry cannot
// be looked up.
func (a *LiveAnswer) noteFlow(d *packet.View, stateful bool) {
	unknown, note := slices.Index(a.Notes, unlessFlow), ""
	switch {
	case d.Transport != packet.ICMP && unknown >= 0:
		note = "it belongs to no known flow (policy.stateful)"
	case d.Transport != packet.ICMP || !flow.HasIdentifier(d.Protocol, d.ICMPType):
		return
	case stateful:
		note = fmt.Sprintf("its flow is not looked up, because the ICMP identifier is not given; see \"fragwall flows --proto %s\"", a.Protocol)
	case a.hasFastPath:
		note = "its fast path entry is not looked up, because the ICMP identifier is not given"
	default:
		return
	}
	if unknown >= 0 {
		a.Notes = slices.Delete(a.Notes, unknown, unknown+1)
	}
	a.Notes = append(a.Notes, note)
}

// Write writes the answer as text.
func (a *LiveAnswer) Write(w io.Writer) error {
	because := a.because()
	switch {
	case a.Passes:
		because = fmt.Sprintf("it belongs to a flow that %s accepted", a.By())
	case a.Reason == verdict.FlowDenied.String():
		because = fmt.Sprintf("it belongs to a flow that %s denies since a reload", a.By())
	}
	text := a.text(because)
	if a.Flow != nil {
		text += a.flow()
	}
	text += a.fastPath()
	for _, l := range a.Limits {
		text += fmt.Sprintf("  limit of rule %q (%s:%d): %s, %d left now\n", l.Rule, a.File, l.Line, l.Limit, l.Left)
	}
	_, err := io.WriteString(w, text+fmt.Sprintf("  policy generation %d\n", a.Generation))
	return err
}

// flow returns the line about the flow.
func (a *LiveAnswer) flow() string {
	f := a.Flow
	text := fmt.Sprintf("  flow: %s, started from %s %s ago, idle for %s, expires in %s, %s and %d in reply\n", f.StateText(), f.From,
		listing.Duration(f.Age), listing.Duration(f.Idle), listing.Duration(f.Expires), terminal.Count(f.OriginalPackets, "packet"), f.ReplyPackets)
	if a.Passes && (f.Protocol == "tcp" || f.Protocol == "sctp") {
		text += "  if it fits the state of the connection\n"
	}
	return text
}

// fastPath returns the line about the fast path entry, or "" if there is none.
func (a *LiveAnswer) fastPath() string {
	f := a.FastPath
	if f == nil {
		return ""
	}
	var of []string
	if f.Whole {
		of = append(of, "whole packets")
	}
	if f.Fragments {
		of = append(of, "fragments")
	}
	text := fmt.Sprintf("  fast path: the kernel %ss its %s, %s so far", f.Verdict, strings.Join(of, " and "), terminal.Count(f.Frames, "frame"))
	if f.Frames > 0 {
		text += fmt.Sprintf(", the last %s ago", listing.Duration(f.Idle))
	}
	return text + "\n"
}
