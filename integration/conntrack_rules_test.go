package integration_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"fragwall/integration/conntrack"
	"fragwall/packet/verdict"
)

// flowRule is an intended difference between flows and connection tracking.
type flowRule struct {
	name                   string
	box, conntrack, reason string
	// lasting is set if fragwall and the kernel have different states afterwards, so that the test
	// cannot compare the rest of the exchange.
	lasting bool
	applies func(p *played, i int) bool
}

// flowRules lists all intended differences. The first rule that applies explains a step.
var flowRules = []flowRule{
	{
		name: "reset",
		box: "These RSTs do not change the flow: before the answer, one that does not acknowledge the SYN; on an open or half-closed connection, " +
			"one without exactly the expected sequence number. They pass if they are in the window, and always on a half-closed connection.",
		conntrack: "Closes an unanswered or half-closed connection, keeps an open one for 10 s, and stores the sequence number.",
		reason:    "RFC 9293 §3.10.7.3, RFC 5961 §3.2: the host drops the RST or answers with an ACK, and continues. Otherwise a few hundred blind RSTs could close any idle connection.",
		lasting:   true,
		applies: func(p *played, i int) bool {
			return p.resetByAnotherNumber(i) && !p.box[i].passed ||
				p.earlier(i, func(j int) bool { return p.resetByAnotherNumber(j) })
		},
	}, {
		name:      "handshake",
		box:       "An invalid segment changes no state.",
		conntrack: "Stores the sequence numbers of the responder's first segment even if it is invalid, and checks the correct SYN/ACK against them.",
		reason:    "A blind SYN/ACK must not break a connection that is being opened.",
		lasting:   true,
		applies: func(p *played, i int) bool {
			return p.earlier(i, p.strayAnswer)
		},
	}, {
		name:      "pick-up",
		box:       "If a new connection on the same ports replaces one that was picked up midstream, the sequence numbers of the new one are checked.",
		conntrack: "Checks the sequence numbers of neither connection.",
		reason:    "The box saw the handshake and knows the sequence numbers.",
		lasting:   true,
		applies: func(p *played, i int) bool {
			answered := p.earlier(i, func(j int) bool {
				return p.Steps[j].From == verdict.Outside && p.isTCP(j) && p.Steps[j].Synchronizes() && p.kernel[j].Verdict.Passes()
			})
			return p.pickedUp(i) && answered
		},
	}, {
		name:      "dccp",
		box:       "The ports of both hosts identify a flow.",
		conntrack: "Does not know DCCP: all DCCP between two hosts is one flow.",
		reason:    "Rules match the ports.",
		applies: func(p *played, i int) bool {
			return p.Kind == "other" && strings.HasPrefix(p.Steps[0].What, "protocol 33") && !p.box[i].passed
		},
	}, {
		name:      "gre",
		box:       "All GRE between two hosts is one flow, in both directions.",
		conntrack: "GRE version 1 (PPTP) is one flow per call and direction, and only the PPTP helper relates the two directions.",
		reason:    "Without a helper, replies would never pass.",
		applies: func(p *played, i int) bool {
			return p.box[i].flow && strings.HasPrefix(p.Steps[0].What, "protocol 47")
		},
	}, {
		name:      "outward",
		box:       "A packet that the rules accept passes, even if it is invalid for its flow. It does not start, change or end a flow.",
		conntrack: "Drops it if `ct state invalid drop` comes first.",
		reason:    "The rules decide which traffic is allowed.",
		applies: func(p *played, i int) bool {
			return p.Steps[i].From == verdict.Inside && p.box[i].passed && !p.box[i].flow
		},
	},
}

// earlier reports whether such returns true for one of the first n steps.
func (p *played) earlier(n int, such func(j int) bool) bool {
	for j := range n {
		if such(j) {
			return true
		}
	}
	return false
}

// isReset reports whether a step is a TCP segment with RST.
func (p *played) isReset(i int) bool {
	flags, _, ok := strings.Cut(p.Steps[i].What, " seq ")
	return ok && strings.Contains(flags, "R")
}

// isTCP reports whether a step is a TCP segment between the hosts and ports of the connection.
func (p *played) isTCP(i int) bool {
	what := p.Steps[i].What
	return strings.Contains(p.Kind, "tcp") && !strings.HasPrefix(what, "icmp") && !strings.HasPrefix(what, "from")
}

// resetByAnotherNumber reports whether a step is a RST that passes conntrack but that the receiver
// would not accept, because it has another sequence or acknowledgment number.
func (p *played) resetByAnotherNumber(i int) bool {
	if !p.isReset(i) || !p.kernel[i].Verdict.Passes() {
		return false
	}
	switch p.kernel[i].Before {
	case "tcp SYN_SENT", "tcp SYN_SENT2":
		ack, ok := p.Steps[i].Acknowledges()
		return p.Steps[i].From == verdict.Outside && (!ok || ack != p.sent(i, verdict.Inside))
	case "tcp ESTABLISHED", "tcp FIN_WAIT", "tcp CLOSE_WAIT":
		return p.pickedUp(i) || !p.exact(i)
	}
	return false
}

// pickedUp reports whether the kernel picked up a connection without its SYN before a step. In that
// case, the sequence number that the host expects is not known.
func (p *played) pickedUp(i int) bool {
	return p.earlier(i, func(j int) bool {
		return p.kernel[j].Verdict == conntrack.New && p.kernel[j].Before == "" && p.isTCP(j) && !p.Steps[j].Synchronizes()
	})
}

// strayAnswer reports whether a step is a segment of the responder that does not answer the SYN, but
// whose sequence numbers the kernel stores.
func (p *played) strayAnswer(i int) bool {
	if p.Steps[i].From != verdict.Outside || !p.isTCP(i) {
		return false
	}
	invalid := p.kernel[i].Verdict == conntrack.Invalid
	switch p.kernel[i].Before {
	case "tcp SYN_SENT":
		ignored := p.Steps[i].Synchronizes() && i+1 < len(p.Steps) && p.kernel[i+1].Before == "tcp SYN_SENT"
		return invalid || ignored
	case "tcp CLOSE":
		return invalid && !p.answered(i)
	}
	return false
}

// answered reports whether the kernel has accepted a SYN of the responder since the last SYN of the
// originator that began a connection.
func (p *played) answered(i int) (answered bool) {
	for j := range i {
		switch {
		case p.kernel[j].Verdict == conntrack.New && p.Steps[j].Synchronizes():
			answered = false
		case p.kernel[j+1].Before == "tcp SYN_RECV", p.kernel[j+1].Before == "tcp SYN_SENT2":
			answered = true
		}
	}
	return answered
}

// sent returns the sequence number after the last SYN that a side sent before a step.
func (p *played) sent(i int, from verdict.Side) (number uint32) {
	for j := range i {
		if s := &p.Steps[j]; s.From == from && p.isTCP(j) && s.Synchronizes() && p.box[j].passed {
			number = s.End()
		}
	}
	return number
}

// exact reports whether a RST has the sequence number that its receiver expects, which is the highest
// number that the receiver has acknowledged.
func (p *played) exact(i int) bool {
	var expected uint32
	known := false
	for j := range i {
		s := &p.Steps[j]
		ack, ok := s.Acknowledges()
		ignored := s.Synchronizes() && p.kernel[j].Before != "tcp SYN_SENT" && p.kernel[j].Before != "tcp SYN_SENT2"
		if s.From != p.Steps[i].From && ok && p.box[j].passed && !ignored && (!known || int32(ack-expected) > 0) {
			expected, known = ack, true
		}
	}
	return known && p.Steps[i].Sequence() == expected
}

// explain returns the rule that explains the difference in a step, or nil.
func (p *played) explain(i int) *flowRule {
	for n := range flowRules {
		if flowRules[n].applies(p, i) {
			return &flowRules[n]
		}
	}
	return nil
}

// TestStateDocument compares the table of differences in docs/state.md with flowRules.
func TestStateDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("| rule | fragwall | connection tracking | why |\n|---|---|---|---|\n")
	for _, r := range flowRules {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, r.box, r.conntrack, r.reason)
	}
	const path, begin, end = "../docs/state.md", "<!-- differences -->\n", "<!-- /differences -->"
	text, err := os.ReadFile(path)
	must(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no table between %q and %q", path, begin, end)
	}
	compareDocument(t, path, before+begin+b.String()+end+after)
}
