package explain

import (
	"fmt"
	"io"
	"time"

	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// LiveAnswer is what a running box decides on a datagram, if it came now.
type LiveAnswer struct {
	Answer
	Generation uint32 `json:"generation"` // of the policy in force
	// Limits are those of the rules that match, up to the one that decides.
	Limits []Limit `json:"limits,omitempty"`
	// Flow is the one that the datagram belongs to. Passes is set where that is why it
	// is accepted.
	Flow   *listing.Flow `json:"flow,omitempty"`
	Passes bool          `json:"passes_by_flow"`
}

// Limit is what is left of a rule's limit.
type Limit struct {
	Rule  string `json:"rule"`
	Line  int    `json:"line"`
	Limit string `json:"limit"`
	Left  int    `json:"left_datagrams"` // that the rule matches at once
}

// AskLive returns what a running box decides: config is the configuration in force,
// table its policy, and now its clock.
func AskLive(config *rules.Config, table *filter.Table, now time.Duration, d *packet.View) LiveAnswer {
	own := *config
	own.Policy = table.Policy()
	answer, o := (&Policy{&own, table}).ask(d, func() time.Duration { return now })
	a := LiveAnswer{Answer: answer, Generation: table.Generation(), Passes: o.Verdict.Has(filter.OfFlow)}
	for _, l := range o.Limits {
		rule := table.Rule(l.Rule)
		a.Limits = append(a.Limits, Limit{rule.Name, rule.Line, rule.Limit.String(), l.Left})
	}
	if o.Flow != nil {
		f := listing.FlowOf(o.Flow, table, now)
		a.Flow = &f
	}
	if a.Passes {
		a.Limit, a.Near = "", nil // no rule is asked
	}
	if o.Flow == nil && d.Transport == packet.Ports {
		for i, note := range a.Notes {
			if note == unlessFlow {
				a.Notes[i] = "no flow is known that it belongs to (policy.stateful)"
			}
		}
	}
	return a
}

// Write writes the answer for people.
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
	for _, l := range a.Limits {
		text += fmt.Sprintf("  limit of rule %q (%s:%d): %s, %d left now\n", l.Rule, a.File, l.Line, l.Limit, l.Left)
	}
	_, err := io.WriteString(w, text+fmt.Sprintf("  by generation %d of the policy\n", a.Generation))
	return err
}

// flow is what is known of the flow.
func (a *LiveAnswer) flow() string {
	f := a.Flow
	text := fmt.Sprintf("  flow: %s, begun from %s %s ago, idle for %s, expires in %s, %d packets and %d in reply\n", f.StateText(), f.From,
		listing.Duration(f.Age), listing.Duration(f.Idle), listing.Duration(f.Expires), f.OriginalPackets, f.ReplyPackets)
	if f.FastPath {
		text += "  the kernel forwards it by itself (fast_path)\n"
	}
	if a.Passes && (f.Protocol == "tcp" || f.Protocol == "sctp") {
		text += "  as long as it fits the state of the connection\n"
	}
	return text
}
