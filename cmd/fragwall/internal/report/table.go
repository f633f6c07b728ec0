package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/packet/verdict"
)

// WriteTables writes the report as tables. before is an earlier report, for rates, or nil.
func (r *Report) WriteTables(to io.Writer, before *Report) {
	fmt.Fprintf(to, "fragwall %s, %s, up %s, policy %d since %s, default %s", terminal.Printable(r.Version), stateOf(r),
		time.Duration(r.UptimeSeconds*float64(time.Second)).Truncate(time.Second), r.Policy.Generation,
		r.Policy.Since.Local().Format(time.DateTime), terminal.Printable(r.Policy.Default))
	if r.Policy.Failures > 0 {
		fmt.Fprintf(to, ", failed reloads: %d", r.Policy.Failures)
	}
	if t := r.Takeover; t != nil {
		pause := time.Duration(t.PauseSeconds * float64(time.Second)).Round(100 * time.Microsecond)
		fmt.Fprintf(to, "\ntake-overs: %d, last %s, pause %s", t.Count, t.Time.Local().Format(time.DateTime), pause)
	}
	if r.Policy.Mistake != "" {
		fmt.Fprintf(to, "\nthe configuration file is broken: %s", terminal.Printable(r.Policy.Mistake))
	}
	fmt.Fprint(to, "\n\n")
	t := newTable(to, sideNames, r, before)
	t.sides(r)
	t.drops(r)
	t.latency(r)
	t.flush()
	t.waiting(to, r)
	r.FastPath.write(to)
	if len(r.Rules) > 0 {
		fmt.Fprintln(to)
		writeRules(to, r, before, r.Rules)
	}
	writeEvents(to, r)
}

// WriteRule writes the table of one rule of the report. before is an earlier report, for rates,
// or nil.
func (r *Report) WriteRule(to io.Writer, rule *Rule, before *Report) {
	writeRules(to, r, before, []Rule{*rule})
}

// stateOf returns a short text that says whether frames flow.
func stateOf(r *Report) string {
	state := "not ready"
	if r.Ready {
		state = "ready"
	}
	if r.Policy.LastGood {
		state += ", with the last good configuration"
	}
	for side := range verdict.Side(verdict.Sides) {
		if joined := r.Sides[side.String()].Joined; joined != nil && !*joined {
			state += fmt.Sprintf(", without the nic of %s", side)
		} else if r.Sides[side.String()].Link == "down" {
			state += fmt.Sprintf(", no link at %s", side)
		}
	}
	return state
}

// table is a table in the making. Names are on the left, numbers in aligned columns.
type table struct {
	w       *tabwriter.Writer
	names   int // width of the names
	rates   bool
	before  *Report // earlier report for rates; empty if there is none
	seconds float64 // time since the earlier report
}

// sideNames is the width of the names in the table of both sides: that of the longest reason.
const sideNames = 29

func newTable(to io.Writer, names int, r, before *Report) *table {
	t := &table{w: tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight), names: names, before: &Report{}}
	if before != nil {
		t.rates, t.before, t.seconds = true, before, r.Time.Sub(before.Time).Seconds()
	}
	return t
}

func (t *table) flush() { _ = t.w.Flush() } // the underlying writer reports the error

// row writes a name and its cells.
func (t *table) row(name string, cells ...string) {
	fmt.Fprintf(t.w, "%-*s\t%s\t\n", t.names, name, strings.Join(cells, "\t"))
}

// cells returns a number and, if rates are shown, its rate.
func (t *table) cells(now, before uint64, unit string) []string {
	cell := []string{grouped(now)}
	if unit == "B" {
		cell[0] = scaled(float64(now)) + "B"
	}
	if t.rates {
		rate := 0.0
		if now >= before && t.seconds > 0 {
			rate = float64(now-before) / t.seconds
		}
		if unit == "B" {
			cell = append(cell, scaled(rate*8)+"bit/s")
		} else {
			cell = append(cell, scaled(rate)+"/s")
		}
	}
	return cell
}

// lone returns a cell without a rate.
func (t *table) lone(cell string) []string {
	if t.rates {
		return []string{cell, ""}
	}
	return []string{cell}
}

// both writes a row with the cells of both sides.
func (t *table) both(name string, of func(side string) []string) {
	t.row(name, append(of(verdict.Inside.String()), of(verdict.Outside.String())...)...)
}

// sides writes the counters of both sides.
func (t *table) sides(r *Report) {
	t.both("", func(side string) []string { return t.lone("FROM " + strings.ToUpper(side)) })
	count := func(name, unit string, of func(Side) uint64) {
		t.both(name, func(side string) []string { return t.cells(of(r.Sides[side]), of(t.before.Sides[side]), unit) })
	}
	t.links(r)
	t.both("missed frames", func(side string) []string {
		now, earlier := r.Sides[side].Missed, t.before.Sides[side].Missed
		switch {
		case now == nil:
			return t.lone("-")
		case earlier == nil:
			earlier = now
		}
		return t.cells(*now, *earlier, "")
	})
	count("received frames", "", func(s Side) uint64 { return s.ReceivedFrames })
	count("received", "B", func(s Side) uint64 { return s.ReceivedBytes })
	count("forwarded frames", "", func(s Side) uint64 { return s.Forwarded })
	count("forwarded", "B", func(s Side) uint64 { return s.ForwardedBytes })
	if r.FastPath.State == FastPathOn {
		t.fastPath(r)
	}
	t.both("waiting frames", func(side string) []string { return t.lone(grouped(r.Sides[side].Waiting)) })
	count("reassembled datagrams", "", func(s Side) uint64 { return s.Reassembled })
	count("dropped frames", "", func(s Side) uint64 { return s.DroppedFrames })
}

// links writes the state of both sides' devices.
func (t *table) links(r *Report) {
	t.both("link", func(side string) []string {
		s := r.Sides[side]
		return t.lone(strings.TrimSpace(terminal.Printable(s.NIC) + " " + terminal.Printable(s.Link)))
	})
	t.both("link speed", func(side string) []string {
		if r.Sides[side].LinkSpeed == 0 {
			return t.lone("-")
		}
		return t.lone(scaled(float64(r.Sides[side].LinkSpeed)*8) + "bit/s")
	})
	t.both("mtu", func(side string) []string { return t.lone(fmt.Sprint(r.Sides[side].MTU)) })
}

// latency writes the quantiles of the processing time.
func (t *table) latency(r *Report) {
	for _, q := range []struct {
		name string
		of   func(Side) float64
	}{
		{"latency, p50", func(s Side) float64 { return s.LatencyP50 }},
		{"latency, p99", func(s Side) float64 { return s.LatencyP99 }},
	} {
		t.both(q.name, func(side string) []string {
			seconds := q.of(r.Sides[side])
			if seconds == 0 {
				return t.lone("-") // not timed yet
			}
			return t.lone(time.Duration(seconds * float64(time.Second)).Round(time.Microsecond).String())
		})
	}
}

// drops writes the reasons with at least one dropped frame.
func (t *table) drops(r *Report) {
	reasons := make(map[string]bool)
	for _, s := range r.Sides {
		for reason := range s.Dropped {
			reasons[reason] = true
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		t.both("  "+reason, func(side string) []string {
			return t.cells(r.Sides[side].Dropped[reason], t.before.Sides[side].Dropped[reason], "")
		})
	}
}

// waiting writes the incomplete datagrams and the flows, with their limits.
func (t *table) waiting(to io.Writer, r *Report) {
	f := r.Fragments
	fmt.Fprintf(to, "\nfragments (%s): %s of %s incomplete datagrams, %.1f of %.1f MiB memory\n", f.Mode,
		grouped(uint64(f.Datagrams)), grouped(uint64(f.DatagramsLimit)), float64(f.Bytes)/mebibyte, float64(f.BytesLimit)/mebibyte)
	if r.Policy.Stateful {
		fmt.Fprintf(to, "flows: %s of %s\n", grouped(uint64(r.Flows.Known)), grouped(uint64(r.Flows.Limit)))
	}
}

// writeRules writes the table of some rules of a report.
func writeRules(to io.Writer, r, before *Report, rules []Rule) {
	longest := len("RULE")
	for _, rule := range rules {
		longest = max(longest, utf8.RuneCountInString(terminal.Printable(rule.Name)))
	}
	t := newTable(to, longest, r, before)
	t.rules(rules)
	t.flush()
}

// rules writes one row per rule.
func (t *table) rules(rules []Rule) {
	head := []string{"ACTION", "DATAGRAMS"}
	if t.rates {
		head = append(head, "")
	}
	head = append(head, "BYTES")
	limited := slices.ContainsFunc(rules, func(rule Rule) bool { return rule.OverLimit != nil })
	if limited {
		head = append(head, "OVER LIMIT")
	}
	t.row("RULE", head...)
	earlier := make(map[string]Rule, len(t.before.Rules))
	for _, rule := range t.before.Rules {
		earlier[rule.Name] = rule
	}
	for _, rule := range rules {
		cells := append([]string{terminal.Printable(rule.Action)}, t.cells(rule.Datagrams, earlier[rule.Name].Datagrams, "")...)
		cells = append(cells, scaled(float64(rule.Bytes))+"B")
		if limited {
			cells = append(cells, overLimit(&rule))
		}
		t.row(terminal.Printable(rule.Name), cells...)
	}
}

// overLimit returns the cell for a rule's limit, "-" if it has none.
func overLimit(rule *Rule) string {
	if rule.OverLimit == nil {
		return "-"
	}
	return grouped(*rule.OverLimit)
}

// grouped returns a number with thousands separators.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// mebibyte is the unit of memory in the configuration.
const mebibyte = 1 << 20

// scaled returns a number with at most four digits and a decimal prefix, separated by a space.
// The unit follows directly.
func scaled(n float64) string {
	for _, prefix := range []string{"", "k", "M", "G", "T"} {
		if n < 9999.5 {
			if prefix == "" || n >= 100 {
				return fmt.Sprintf("%.0f %s", n, prefix)
			}
			return fmt.Sprintf("%.1f %s", n, prefix)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.0f P", n)
}
