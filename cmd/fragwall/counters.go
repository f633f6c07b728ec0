package main

import (
	"fmt"
	"io"
	"log/slog"

	"fragwall/packet/verdict"
	"fragwall/wire"
)

// writeCounters tells what became of the frames of both directions.
func writeCounters(w io.Writer, b *wire.Bump) error {
	var text []byte
	for side := range verdict.Side(verdict.Sides) {
		s := b.Counters(side)
		text = fmt.Appendf(text, "from %-7s received %d, forwarded %d, waiting %d, reassembled %d datagrams\n",
			side, s.Received(), s.Forwarded, s.Waiting, s.Reassembled)
		if s.Answered > 0 {
			text = fmt.Appendf(text, "             answered %d rejected datagrams\n", s.Answered)
		}
		for reason, n := range s.Dropped {
			if n > 0 {
				text = fmt.Appendf(text, "             dropped %d: %s\n", n, verdict.Reason(reason))
			}
		}
	}
	table := b.Policy()
	for i, r := range table.Policy().Rules {
		if n := table.Count(i); n.Datagrams > 0 {
			text = fmt.Appendf(text, "rule %q %s: %d datagrams, %d bytes\n", r.Name, r.Action, n.Datagrams, n.Bytes)
		}
	}
	_, err := w.Write(text)
	return err
}

// logCounters tells the same as records of a log.
func logCounters(log *slog.Logger, b *wire.Bump) {
	for side := range verdict.Side(verdict.Sides) {
		s := b.Counters(side)
		dropped := make(map[string]uint64)
		for reason, n := range s.Dropped {
			if n > 0 {
				dropped[verdict.Reason(reason).String()] = n
			}
		}
		log.Info("counters", "from", side.String(), "received", s.Received(), "forwarded", s.Forwarded, "waiting", s.Waiting,
			"reassembled", s.Reassembled, "answered", s.Answered, "dropped", dropped)
	}
	table := b.Policy()
	for i, r := range table.Policy().Rules {
		if n := table.Count(i); n.Datagrams > 0 {
			log.Info("counters", "rule", r.Name, "action", r.Action.String(), "datagrams", n.Datagrams, "bytes", n.Bytes)
		}
	}
}
