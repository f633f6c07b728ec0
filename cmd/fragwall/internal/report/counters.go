package report

import (
	"fmt"
	"io"
	"log/slog"

	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/packet/verdict"
)

// WriteCounters writes the counters of both sides, and of the rules that decided on any
// datagram.
func (r *Report) WriteCounters(w io.Writer) error {
	var text []byte
	for side := range verdict.Side(verdict.Sides) {
		s := r.Sides[side.String()]
		text = fmt.Appendf(text, "from %-7s received %d, forwarded %d, waiting %d, reassembled %s\n",
			side, s.ReceivedFrames, s.Forwarded, s.Waiting, terminal.Count(s.Reassembled, "datagram"))
		if s.Answered > 0 {
			text = fmt.Appendf(text, "             answered %s\n", terminal.Count(s.Answered, "rejected datagram"))
		}
		for reason := range verdict.Reason(verdict.Reasons) {
			if n := s.Dropped[reason.String()]; n > 0 {
				text = fmt.Appendf(text, "             dropped %d: %s\n", n, reason)
			}
		}
	}
	for _, rule := range r.Rules {
		if rule.Datagrams > 0 {
			text = fmt.Appendf(text, "rule %q %s: %s, %s\n", rule.Name, rule.Action, terminal.Count(rule.Datagrams, "datagram"), terminal.Count(rule.Bytes, "byte"))
		}
	}
	_, err := w.Write(text)
	return err
}

// LogCounters logs the same counters.
func (r *Report) LogCounters(log *slog.Logger) {
	for side := range verdict.Side(verdict.Sides) {
		s := r.Sides[side.String()]
		log.Info("counters", "from", side.String(), "received", s.ReceivedFrames, "forwarded", s.Forwarded, "waiting", s.Waiting,
			"reassembled", s.Reassembled, "answered", s.Answered, "dropped", s.Dropped)
	}
	for _, rule := range r.Rules {
		if rule.Datagrams > 0 {
			log.Info("counters", "rule", rule.Name, "action", rule.Action, "datagrams", rule.Datagrams, "bytes", rule.Bytes)
		}
	}
}
