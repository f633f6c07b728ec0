package meter

import (
	"fmt"
	"strings"
	"time"

	"fragwall/packet/verdict"
)

// Report holds the results of a run of the meter.
type Report struct {
	Took       time.Duration            // duration of sending
	Small      [verdict.Sides]Datagrams // by the sender's side
	Fragmented [verdict.Sides]Datagrams // by the sender's side
	Streams    []Stream
}

// report sums up the flows.
func (m *Meter) report() *Report {
	r := &Report{Took: m.took}
	of := [kinds]*[verdict.Sides]Datagrams{&r.Small, &r.Fragmented}
	for _, f := range m.flows {
		for from := range verdict.Sides {
			d := f.tallies[from].finish(f.sent[from])
			d.Rate = float64(d.Sent) / m.took.Seconds()
			of[f.kind][from].add(&d)
		}
	}
	for from := range verdict.Sides {
		for k := range kinds {
			of[k][from].Behind = m.behind[from][k]
		}
	}
	for _, s := range m.streams {
		r.Streams = append(r.Streams, s.result())
	}
	return r
}

// All returns the sum over both kinds of datagrams and both sides.
func (r *Report) All() (all Datagrams) {
	for _, of := range [...]*[verdict.Sides]Datagrams{&r.Small, &r.Fragmented} {
		for from := range of {
			all.add(&of[from])
		}
	}
	return all
}

// Retransmissions returns the number of retransmissions of all streams.
func (r *Report) Retransmissions() (n uint32) {
	for _, s := range r.Streams {
		n += s.Retransmissions
	}
	return n
}

// Faults lists the counts of errors that are higher than in another report. If than is nil, they are
// compared with 0. Gaps and delays are not faults.
func (r *Report) Faults(than *Report) (faults []string) {
	if than == nil {
		than = &Report{}
	}
	now, before := r.All(), than.All()
	for _, c := range []struct {
		what        string
		now, before uint64
	}{
		{"datagrams lost", now.Lost, before.Lost},
		{"datagrams duplicated", now.Duplicated, before.Duplicated},
		{"datagrams reordered", now.Reordered, before.Reordered},
		{"datagrams corrupted", now.Corrupted, before.Corrupted},
		{"tcp retransmissions", uint64(r.Retransmissions()), uint64(than.Retransmissions())},
	} {
		if c.now > c.before {
			faults = append(faults, fmt.Sprintf("%d %s, compared with %d", c.now, c.what, c.before))
		}
	}
	return faults
}

// String returns the report as lines of text.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f s\n", r.Took.Seconds())
	for _, of := range []struct {
		name  string
		sides *[verdict.Sides]Datagrams
	}{{"small", &r.Small}, {"fragmented", &r.Fragmented}} {
		for from, d := range of.sides {
			if d.Sent == 0 {
				continue
			}
			fmt.Fprintf(&b, "%s from %v: %.0f/s, sent %d, lost %d (overflowed %d), duplicated %d, reordered %d, corrupted %d; sender behind by %d\n",
				of.name, verdict.Side(from), d.Rate, d.Sent, d.Lost, d.Overflowed, d.Duplicated, d.Reordered, d.Corrupted, d.Behind)
			fmt.Fprintf(&b, "    gaps   %v\n    delays %v\n", d.Gaps, d.Delays)
		}
	}
	for _, s := range r.Streams {
		family := map[bool]string{false: "ipv4", true: "ipv6"}[s.IPv6]
		fmt.Fprintf(&b, "tcp from %v, %s: %d bytes, %.1f Mbit/s, %d retransmissions\n", s.From, family, s.Bytes, s.Rate*8/1e6, s.Retransmissions)
	}
	return b.String()
}
