package replay

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/capture"
	"fragwall/wire"
)

// summary counts what the wire does not count itself.
type summary struct {
	name    string
	config  *rules.Config
	stepper *wire.Stepper
	sides   []verdict.Side // ingress sides

	first, latest time.Time
	frames        uint64
	backwards     uint64    // frames with an earlier timestamp than a frame before them
	skipped       uint64    // frames of other interfaces
	directions    [3]uint64 // frames, by capture.Direction
	mapped        bool      // interfaces are mapped, so outbound frames are skipped
	copies        uint64    // frames that were on the other side shortly before
	wrapped       uint64    // frames whose time exceeds the range of the output format
	leftToNIC     uint64    // frames dropped because of a field that the sender left to its NIC
	bytes         [verdict.Sides]ways
	datagrams     [verdict.Sides]ways
	rules         map[*filter.Rule]*matches
	none          matches // judged without a rule that matched
}

// ways counts what arrived on one side, by verdict.
type ways struct{ accepted, dropped uint64 }

func (w *ways) add(action verdict.Action, n int) {
	if action == verdict.Accept {
		w.accepted += uint64(n)
	} else {
		w.dropped += uint64(n)
	}
}

// matches counts what one rule decided on.
type matches struct{ datagrams, frames, bytes uint64 }

func newSummary(name string, sides []verdict.Side, config *rules.Config, stepper *wire.Stepper) *summary {
	return &summary{name: name, sides: sides, config: config, stepper: stepper, rules: map[*filter.Rule]*matches{}}
}

func (s *summary) arrive(f capture.Frame) {
	if s.frames == 0 {
		s.first, s.latest = f.Time, f.Time
	}
	s.frames++
	if f.Time.Before(s.latest) {
		s.backwards++
	} else {
		s.latest = f.Time
	}
}

func (s *summary) decide(d *wire.Decision) {
	bytes := d.Bytes()
	s.bytes[d.From].add(d.Verdict.Action, bytes)
	if !d.Judged {
		return
	}
	s.datagrams[d.From].add(d.Verdict.Action, 1)
	m := &s.none
	if rule := d.Rule(); rule != nil {
		if m = s.rules[rule]; m == nil {
			m = &matches{}
			s.rules[rule] = m
		}
	}
	m.datagrams++
	m.frames += uint64(d.Frames())
	m.bytes += uint64(bytes)
}

// write writes the summary.
func (s *summary) write(w io.Writer) error {
	t := &table{}
	t.line("%s: %s in %.6f s of capture", s.name, terminal.Count(s.frames, "frame"), s.latest.Sub(s.first).Seconds())
	if s.backwards > 0 {
		t.line("timestamps go backwards before %s", terminal.Count(s.backwards, "frame"))
	}
	if s.skipped > 0 {
		t.line("%s of other interfaces skipped", terminal.Count(s.skipped, "frame"))
	}
	s.writeNotes(t)
	s.writeFrames(t)
	s.writeDatagrams(t)
	s.writeRules(t)
	_, err := w.Write(t.text)
	return err
}

// writeNotes describes properties of the capture that may make verdicts differ from those of a
// running box.
func (s *summary) writeNotes(t *table) {
	in, out := s.directions[capture.Inbound], s.directions[capture.Outbound]
	switch {
	case out > 0 && s.mapped:
		t.line("%s skipped", terminal.Count(out, "outbound frame"))
	case out > 0 && in > 0:
		t.line("%s marked as outbound and %d as inbound, but all replayed as arriving from one side; see \"Both directions in one capture\" in docs/replay.md", terminal.Count(out, "frame"), in)
	}
	if s.copies > 0 {
		t.line("%s from the other side repeated within a second, like the copies that a box forwards; see \"Both directions in one capture\" in docs/replay.md", terminal.Count(s.copies, "frame"))
	}
	if s.leftToNIC > 0 {
		t.line("%s dropped with a checksum or length of 0, as in a capture on the sender with offloads; replay the capture with --offloads", terminal.Count(s.leftToNIC, "frame"))
	}
	if s.wrapped > 0 {
		t.line("%s later than 2106-02-07, the limit of pcap: the output timestamps lack 2^32 seconds", terminal.Count(s.wrapped, "frame"))
	}
}

func (s *summary) writeFrames(t *table) {
	all := report.Of(s.stepper.Bump).Sides
	counters := make([]report.Side, len(s.sides))
	heads := make([]string, len(s.sides))
	for i, side := range s.sides {
		counters[i] = all[side.String()]
		heads[i] = "from " + side.String()
	}
	row := func(label string, value func(i int) uint64) {
		values := make([]uint64, len(s.sides))
		for i := range values {
			values[i] = value(i)
		}
		t.row(label, values...)
	}
	t.head("frames", heads...)
	row("in", func(i int) uint64 { return counters[i].ReceivedFrames })
	row("forwarded", func(i int) uint64 { return counters[i].Forwarded })
	f := s.config.Fragments
	rebuilt := f.Mode == packet.ModeReassemble && f.Emit == packet.EmitWhole
	if rebuilt {
		row("  sent as", func(i int) uint64 { return counters[i].Sent })
	}
	row("dropped", func(i int) uint64 { return counters[i].DroppedFrames })
	for reason := range verdict.Reason(verdict.Reasons) {
		name := reason.String()
		if slices.ContainsFunc(counters, func(c report.Side) bool { return c.Dropped[name] > 0 }) {
			row("  "+name, func(i int) uint64 { return counters[i].Dropped[name] })
		}
	}
	t.head("bytes", heads...)
	row("forwarded", func(i int) uint64 { return s.bytes[s.sides[i]].accepted })
	if rebuilt {
		row("  sent as", func(i int) uint64 { return counters[i].SentBytes })
	}
	row("dropped", func(i int) uint64 { return s.bytes[s.sides[i]].dropped })
	t.head("datagrams", heads...)
	row("reassembled", func(i int) uint64 { return counters[i].Reassembled })
}

func (s *summary) writeDatagrams(t *table) {
	row := func(label string, value func(w ways) uint64) {
		values := make([]uint64, len(s.sides))
		for i, side := range s.sides {
			values[i] = value(s.datagrams[side])
		}
		t.row(label, values...)
	}
	row("judged", func(w ways) uint64 { return w.accepted + w.dropped })
	row("  accepted", func(w ways) uint64 { return w.accepted })
	row("  dropped", func(w ways) uint64 { return w.dropped })
}

// writeRules lists the rules that decided on any datagram, in the order of the file.
func (s *summary) writeRules(t *table) {
	t.head("rule", "action", "datagrams", "frames", "bytes")
	inOrder := slices.SortedFunc(maps.Keys(s.rules), func(a, b *filter.Rule) int { return cmp.Compare(a.Line, b.Line) })
	for _, r := range inOrder {
		t.rule(r.Name, r.Action.String(), *s.rules[r])
	}
	if s.none.datagrams > 0 {
		t.rule("(none)", "", s.none)
	}
	if idle := len(s.config.Policy.Rules) - len(inOrder); idle > 0 {
		t.line("  and %s that decided on nothing", terminal.Count(idle, "rule"))
	}
}

// table is the text of the summary.
type table struct{ text []byte }

func (t *table) line(format string, args ...any) {
	t.text = fmt.Appendf(t.text, format+"\n", args...)
}

// Column widths in characters.
const (
	labelWidth = 32
	valueWidth = 14
)

func (t *table) head(label string, columns ...string) {
	t.text = fmt.Appendf(t.text, "\n%-*s", labelWidth, label)
	for _, c := range columns {
		t.text = fmt.Appendf(t.text, "%*s", valueWidth, c)
	}
	t.text = append(t.text, '\n')
}

func (t *table) row(label string, values ...uint64) {
	t.text = fmt.Appendf(t.text, "%-*s", labelWidth, "  "+label)
	for _, v := range values {
		t.text = fmt.Appendf(t.text, "%*d", valueWidth, v)
	}
	t.text = append(t.text, '\n')
}

func (t *table) rule(name, action string, m matches) {
	t.text = fmt.Appendf(t.text, "%-*s%*s%*d%*d%*d\n", labelWidth, "  "+name, valueWidth, action,
		valueWidth, m.datagrams, valueWidth, m.frames, valueWidth, m.bytes)
}
