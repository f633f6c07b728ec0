package wire

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest/evasion"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

var update = flag.Bool("update", false, "write the generated documents")

// columns are the ways to process fragments, in the order of the table.
var columns = []struct {
	Config
	title string
}{
	{Config{Mode: packet.ModeReassemble}, "`reassemble`"},
	{Config{Mode: packet.ModeReassemble, Emit: packet.EmitWhole}, "`reassemble`, `whole`"},
	{Config{Mode: packet.ModeValidate}, "`validate`"},
	{Config{Mode: packet.ModeDrop}, "`drop`"},
	{Config{Mode: packet.ModeFirstAcceptRest}, "`first-accept-rest`"},
	{Config{Mode: packet.ModeFirstDropRest}, "`first-drop-rest`"},
}

// outcome is the result of a case.
type outcome struct {
	out     []evasion.Frame
	dropped map[verdict.Reason]uint64
}

// catalogue returns the policy for which the cases are written.
func catalogue(t testing.TB) *filter.Policy {
	t.Helper()
	c, err := rules.Parse("policy", []byte("[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n"+evasion.Policy))
	if err != nil {
		t.Fatal(err)
	}
	return c.Policy
}

// play sends frames through a wire, lets time pass until no fragment is held, and checks that
// every frame is counted.
func play(t *testing.T, c Config, frames []evasion.Frame) outcome {
	t.Helper()
	o := outcome{dropped: map[verdict.Reason]uint64{}}
	runConfig(t, c, func(b *testWire) {
		gone, cancel := context.WithCancel(b.Context())
		cancel()
		begin := time.Now()
		for _, f := range frames {
			time.Sleep(f.At - time.Since(begin))
			b.send(f.From, f.Data)
			for {
				left, err := b.ports[f.From.Other()].Next(gone)
				if err != nil {
					break
				}
				o.out = append(o.out, evasion.Frame{At: f.At, From: f.From, Data: left.Data})
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		received := uint64(0)
		for side := range verdict.Side(verdict.Sides) {
			s := b.Counters(side)
			received += s.Received()
			for r, n := range s.Dropped {
				if n > 0 {
					o.dropped[verdict.Reason(r)] += n
				}
			}
			if s.Waiting != 0 {
				b.Errorf("%d frames held after all deadlines", s.Waiting)
			}
		}
		if received != uint64(len(frames)) {
			b.Errorf("%d of %d frames counted", received, len(frames))
		}
		if u := b.Usage(); u.Bytes != 0 || u.Datagrams != 0 {
			b.Errorf("after all deadlines, the table charges for %+v", u)
		}
	})
	return o
}

// verdict describes what an outcome means for the hosts on the egress side. The worst result
// for any of them comes first.
func (o *outcome) verdict(policy *filter.Policy, c *evasion.Case, in []evasion.Frame) string {
	byHost := []map[string][]string{}
	fewest := 1 << 30
	for _, host := range evasion.Hosts() {
		got := map[string][]string{}
		delivered := host.Receive(o.out)
		for _, d := range delivered {
			var p packet.Parsed
			p.Decode(d.Frame)
			p.Fragmented = true
			if judged(policy, &p).Action != verdict.Accept {
				return "**evades**"
			}
			got[d.Key] = append(got[d.Key], string(d.Frame))
		}
		byHost = append(byHost, got)
		fewest = min(fewest, len(delivered))
	}
	for i, a := range byHost {
		for _, b := range byHost[:i] {
			if disagree(a, b) {
				return "**ambiguous**"
			}
		}
	}
	for _, f := range in {
		if f.Hostile && slices.ContainsFunc(o.out, func(g evasion.Frame) bool { return bytes.Equal(f.Data, g.Data) }) {
			return "**leaks**"
		}
	}
	why := o.reasons()
	switch {
	case fewest < c.Delivers:
		return "**lost**" + why
	case c.Group == evasion.Honest:
		return "passes"
	case why == "":
		return "harmless"
	}
	return "blocked" + why
}

// disagree reports whether two hosts reassembled different datagrams from the same fragments:
// each has some that the other lacks.
func disagree(a, b map[string][]string) bool {
	lacks := func(x, y []string) bool {
		return slices.ContainsFunc(x, func(d string) bool { return !slices.Contains(y, d) })
	}
	for k := range a {
		if lacks(a[k], b[k]) && lacks(b[k], a[k]) {
			return true
		}
	}
	return false
}

// reasons lists the reasons for which frames were dropped, except for those that follow from
// others.
func (o *outcome) reasons() string {
	var names []string
	for _, r := range slices.Sorted(maps.Keys(o.dropped)) {
		if r != verdict.FragmentPoisoned {
			names = append(names, r.String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// TestEvasion runs the catalogue in every mode, and compares the table in the documentation
// with the results. In the modes that protect hosts, all allowed datagrams arrive and no other
// ones do.
func TestEvasion(t *testing.T) {
	policy := catalogue(t)
	var table strings.Builder
	group := evasion.Group("")
	for _, c := range evasion.Cases() {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&table, "\n## %s\n\n| case | reference |", group)
			for _, column := range columns {
				fmt.Fprintf(&table, " %s |", column.title)
			}
			fmt.Fprintf(&table, "\n|%s\n", strings.Repeat("---|", 2+len(columns)))
		}
		var rows [evasion.Families]string
		for f, frames := range c.Frames {
			if frames == nil {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", c.Name, evasion.Family(f)), func(t *testing.T) {
				rows[f] = row(t, policy, &c, frames)
			})
		}
		for f, cells := range rows {
			family := " (" + evasion.Family(f).String() + ")"
			switch {
			case cells == "", f == int(evasion.IPv6) && rows[evasion.IPv4] == cells:
				continue
			case rows[0] == rows[1]:
				family = ""
			}
			fmt.Fprintf(&table, "| %s%s | %s |%s\n", c.Name, family, c.Reference, cells)
		}
	}
	golden(t, "../docs/evasion.md", preface+table.String())
}

// row runs a case of one family in every mode and returns the cells of its row.
func row(t *testing.T, policy *filter.Policy, c *evasion.Case, frames []evasion.Frame) string {
	var cells strings.Builder
	var original outcome
	for i, column := range columns {
		column.Policy = policy
		o := play(t, column.Config, frames)
		cell := o.verdict(policy, c, frames)
		fmt.Fprintf(&cells, " %s |", cell)
		if want := []string{c.Reassemble, c.Whole, c.Validate}; i < len(want) && cell != want[i] {
			t.Errorf("%s: %q, want %q", column.title, cell, want[i])
		}
		if column.Emit == packet.EmitWhole {
			if got, want := o.payloads(), original.payloads(); !slices.Equal(got, want) {
				t.Errorf("rebuilt: %d datagrams arrived, or other ones than the original %d", len(got), len(want))
			}
			continue
		}
		original = o
		for _, f := range o.out {
			if !slices.ContainsFunc(frames, func(in evasion.Frame) bool { return bytes.Equal(in.Data, f.Data) }) {
				t.Errorf("%s: a frame left that had not arrived", column.title)
			}
		}
	}
	return cells.String()
}

// payloads returns what a host receives above its IP layer.
func (o *outcome) payloads() (all []string) {
	for _, d := range evasion.Hosts()[0].Receive(o.out) {
		var p packet.Parsed
		p.Decode(d.Frame)
		all = append(all, string(d.Frame[p.Upper:p.End]))
	}
	return all
}

// golden compares a generated document with the file. With -update, it writes the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is stale: write it with go test ./wire -run TestEvasion -update", path)
	}
}

const preface = `# Evasion

This page lists attacks with fragments and their result in each mode, and honest
traffic, which must pass. ` + "`go test ./wire -run TestEvasion -update`" + ` writes the
tables; the test fails if they are stale. The cases and their policy are in
packet/packettest/evasion.

The test passes the forwarded fragments to models of the hosts behind the filter.
The models resolve overlaps in each of the known ways (first, last, BSD, BSD-right,
Linux), have timeouts from 15 to 120 seconds, and are attached directly or behind
a router.

| cell | what it means |
|---|---|
| passes | every host receives every allowed datagram |
| blocked: … | nothing hostile passed, and nothing allowed was lost; the reasons of the drops |
| harmless | all fragments passed, and every host reassembles the same allowed datagram, or none |
| **lost** | an allowed datagram did not arrive |
| **leaks** | fragments of a denied datagram passed, or fragments that belong to no honest one |
| **ambiguous** | hosts reassemble different datagrams from what passed |
| **evades** | some host reassembles a datagram that the policy denies |

If only some fragments of a datagram reach a host, the host keeps them until its
own timeout. If the sender reuses the identification before that, for another
accepted datagram, the host may mix the two: these are the cases that are
"ambiguous" in ` + "`reassemble`" + ` and ` + "`validate`" + `. All parts of both datagrams were
accepted, and the ports are those of an accepted first fragment. But an IPv6 host
that accepts overlaps, in violation of RFC 5722, may read another header chain. A
rebuilt datagram (` + "`whole`" + `) has one TTL, so its fragments reach the host or expire
together. In ` + "`validate`" + `, part of a datagram may also have been forwarded when the
datagram expires or is evicted. If that matters, set ` + "`timeout_ipv4`" + ` and
` + "`timeout_ipv6`" + ` to the timeout of the slowest host (up to 120 s, RFC 1122 §3.3.2).
`
