package integration_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/integration/conntrack"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/capture"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

var exchanges = flag.Int("exchanges", 20000, "number of exchanges to compare with the kernel's connection tracking")

// conntrackPolicy is the ruleset of [conntrack.Kernel] as a configuration of fragwall.
var conntrackPolicy = devices + `
[policy]
default = "drop"
stateful = true
tcp = "%s"
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// judged is fragwall's verdict on a step.
type judged struct {
	passed bool
	flow   bool // because it belongs to a flow
}

// playback is fragwall's wire, which processes one step at a time.
type playback struct {
	stepper *wire.Stepper
	now     time.Time
	step    *judged // verdict on the current step
}

// playbackBegins is the time of the first exchange.
var playbackBegins = time.Unix(1_700_000_000, 0)

func newPlayback(t *testing.T, policy string) *playback {
	config, err := rules.Parse("oracle.toml", []byte(policy))
	must(t, err)
	p := &playback{now: playbackBegins}
	c := wire.Config{Policy: config.Policy, Mode: packet.ModeDrop, Observer: p}
	for side := range verdict.Side(verdict.Sides) {
		c.Sides[side] = wire.SideConfig{MTU: 1500, Lanes: []tun.Lane{tuntest.Sink(p.write)}}
	}
	p.stepper = wire.NewStepper(c)
	return p
}

// play passes an exchange to fragwall, and returns the verdict on each step.
func (p *playback) play(e *conntrack.Exchange) []judged {
	all := make([]judged, len(e.Steps))
	for i := range e.Steps {
		step := &e.Steps[i]
		p.step = &all[i]
		p.stepper.Forward(step.From, tun.Frame{Data: step.Frame}, p.tick(step))
	}
	return all
}

// tick advances the time by the pause before a step and 1 ms, and returns it.
func (p *playback) tick(step *conntrack.Step) time.Time {
	p.now = p.now.Add(time.Millisecond + step.After())
	return p.now
}

func (p *playback) Wants(*filter.Table, filter.Verdict, *packet.Parsed) wire.Reporter { return p }

func (p *playback) Decided(d *wire.Decision) { p.step.flow = d.Verdict.Has(filter.OfFlow) }

// write records that a step's packet passes.
func (p *playback) write([]tun.Frame) (refused int, err error) {
	p.step.passed = true
	return 0, nil
}

// comparison compares fragwall with the kernel.
type comparison struct {
	*testing.T
	kernel  *conntrack.Kernel
	policy  string
	reached map[string]int // packets, by the state of their connection and the kernel's verdict
	differ  map[string]int // packets with different verdicts, by the rule that explains them
	close   int            // exchanges with a pause too close to a timeout
	failed  map[string]int // exchanges with a difference that no rule explains, by its description
}

// TestConntrackAgrees passes random exchanges to nftables with connection tracking and to
// fragwall, and compares which packets pass.
func TestConntrackAgrees(t *testing.T) {
	t.Run("strict", func(t *testing.T) { compareWithConntrack(t, "strict", false) })
	t.Run("loose", func(t *testing.T) { compareWithConntrack(t, "loose", true) })
}

// compareWithConntrack compares a value of the key tcp with a value of
// net.netfilter.nf_conntrack_tcp_loose.
func compareWithConntrack(t *testing.T, tcp string, loose bool) {
	kernel, err := conntrack.NewKernel(loose)
	must(t, err)
	defer func() { must(t, kernel.Close()) }()
	c := &comparison{
		T: t, kernel: kernel, policy: fmt.Sprintf(conntrackPolicy, tcp),
		reached: map[string]int{}, differ: map[string]int{}, failed: map[string]int{},
	}
	for n := 0; n < *exchanges; n += together {
		c.batch(n, min(together, *exchanges-n))
	}
	c.replay(min(together, *exchanges))
	c.report()
}

// together is the number of exchanges that run concurrently.
const together = 4000

// batch compares n exchanges, starting with number first.
func (c *comparison) batch(first, n int) {
	all := make([]conntrack.Exchange, n)
	for i := range all {
		all[i] = conntrack.Generate(*seed, first+i, conntrack.Slot(i))
	}
	for i, r := range c.play(all) {
		d := r.firstUnexplained()
		r.count(c, d)
		if d.step < 0 {
			continue
		}
		if c.failed[d.what]++; c.failed[d.what] <= shown {
			c.Errorf("seed %d, exchange %d (%s): %s:\n%s", *seed, first+i, r.Kind, d.what, c.shrink(first+i, d))
		}
	}
}

// shown is the number of failed exchanges that are printed per reason.
const shown = 2

// played is an exchange with the verdicts on its steps.
type played struct {
	*conntrack.Exchange
	kernel []conntrack.Observation
	box    []judged
}

// play passes exchanges to the kernel and to fragwall.
func (c *comparison) play(all []conntrack.Exchange) []played {
	observations, err := c.kernel.Run(all, 0)
	must(c.T, err)
	box := newPlayback(c.T, c.policy)
	results := make([]played, len(all))
	for i := range all {
		results[i] = played{&all[i], observations[i], box.play(&all[i])}
	}
	return results
}

// difference is a difference that no rule explains.
type difference struct {
	step int    // -1 if there is none
	what string // description; see wrong
	kind string // see kind
}

// firstUnexplained returns the first unexplained difference. It ignores the steps after an explained
// difference that is lasting.
func (p *played) firstUnexplained() difference {
	for i := range p.Steps {
		if p.kernel[i].Close {
			break
		}
		if p.kernel[i].Verdict.Passes() == p.box[i].passed {
			continue
		}
		rule := p.explain(i)
		if rule == nil {
			return difference{i, p.wrong(i), p.kind(i)}
		}
		if rule.lasting {
			break
		}
	}
	return difference{step: -1}
}

// wrong describes the difference in a step. Differences of the same kind have the same description.
func (p *played) wrong(i int) string {
	before, theirs := p.kernel[i].Before, p.kernel[i].Verdict
	if before == "" {
		before = "no connection"
	}
	way := "outward"
	if p.Steps[i].From == verdict.Outside {
		way = "inward"
	}
	if p.box[i].passed {
		return fmt.Sprintf("%s packet passes in state %q, but conntrack's verdict is %v", way, before, theirs)
	}
	return fmt.Sprintf("%s %s packet is dropped in state %q, but conntrack's verdict is %v", way, p.kind(i), before, theirs)
}

// kind returns whether a step is forged, honest, or honest after forged steps.
func (p *played) kind(i int) string {
	switch {
	case !p.Steps[i].Honest:
		return "forged"
	case slices.ContainsFunc(p.Steps[:i], func(s conntrack.Step) bool { return !s.Honest }):
		return "honest beside forged"
	}
	return "honest"
}

// count counts the compared steps, up to the difference d or a lasting one.
func (p *played) count(c *comparison, d difference) {
	for i := range p.Steps {
		o := p.kernel[i]
		if o.Close {
			c.close++
			return
		}
		before := o.Before
		if before == "" {
			before = "none"
		}
		c.reached[before+", "+o.Verdict.String()]++
		if i == d.step {
			return
		}
		if o.Verdict.Passes() != p.box[i].passed {
			rule := p.explain(i)
			c.differ[rule.name]++
			if rule.lasting {
				return
			}
		}
	}
}

// shrink removes steps and pauses from an exchange as long as the difference stays, and returns the
// result.
func (c *comparison) shrink(n int, d difference) *played {
	var part conntrack.Candidate
	for i := range d.step + 1 {
		part.Steps = append(part.Steps, i)
	}
	best := c.try(n, []conntrack.Candidate{part})[0]
	for {
		candidates := part.Smaller(conntrack.Generate(*seed, n, 0), d.kind == "honest")
		if len(candidates) == 0 {
			return &best
		}
		results := c.try(n, candidates)
		smaller := slices.IndexFunc(results, func(p played) bool {
			found := p.firstUnexplained()
			return found.step == len(p.Steps)-1 && found.what == d.what
		})
		if smaller < 0 {
			return &best
		}
		part, best = candidates[smaller], results[smaller]
	}
}

// try plays parts of an exchange.
func (c *comparison) try(n int, candidates []conntrack.Candidate) []played {
	all := make([]conntrack.Exchange, len(candidates))
	for i, candidate := range candidates {
		all[i] = candidate.Of(conntrack.Generate(*seed, n, conntrack.Slot(i)))
	}
	return c.play(all)
}

// String lists the steps with both verdicts.
func (p *played) String() string {
	var b strings.Builder
	for i := range p.Steps {
		o := &p.kernel[i]
		state := ""
		if o.Before != "" {
			state = fmt.Sprintf(" in %s with %v left", o.Before, o.Left)
		}
		fragwall := "drops"
		switch {
		case p.box[i].flow:
			fragwall = "passes by a flow"
		case p.box[i].passed:
			fragwall = "passes by the rule"
		}
		fmt.Fprintf(&b, "%2d %v\n     conntrack: %v%s; fragwall: %s\n", i, &p.Steps[i], o.Verdict, state, fragwall)
	}
	return b.String()
}

// replay passes the first n exchanges to `fragwall replay`. The same packets must pass as in the wire.
func (c *comparison) replay(n int) {
	dir := c.TempDir()
	in, out := filepath.Join(dir, "in.pcapng"), filepath.Join(dir, "out.pcapng")
	file, err := os.Create(in)
	must(c.T, err)
	defer file.Close()
	writer, err := capture.NewPcapng(file, "oracle", "inside", "outside")
	must(c.T, err)
	box, clock := newPlayback(c.T, c.policy), &playback{now: playbackBegins}
	passed := map[string]bool{} // by frame
	for i := range n {
		e := conntrack.Generate(*seed, i, conntrack.Slot(i))
		for s, judged := range box.play(&e) {
			step := &e.Steps[s]
			passed[string(step.Frame)] = judged.passed
			must(c.T, writer.Write(capture.Frame{Data: step.Frame, Length: len(step.Frame), Time: clock.tick(step), Interface: int(step.From)}))
		}
	}
	must(c.T, writer.Flush())
	text, err := exec.Command(program, "replay", "-c", configure(c.T, c.policy), "--inside-interface", "0", "--outside-interface", "1", "-o", out, in).CombinedOutput()
	if err != nil {
		c.Fatalf("replay: %v: %s", err, text)
	}
	left, err := os.Open(out)
	must(c.T, err)
	defer left.Close()
	reader, err := capture.NewReader(left)
	must(c.T, err)
	for {
		frame, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		must(c.T, err)
		if !passed[string(frame.Data)] {
			c.Fatalf("replay forwards a frame that the wire drops, or forwards it twice: % x", frame.Data)
		}
		delete(passed, string(frame.Data))
	}
	for frame, did := range passed {
		if did {
			c.Fatalf("replay drops a frame that the wire forwards: % x", frame)
		}
	}
}

// wanted lists the states that the exchanges must reach if there are enough of them, with the verdicts
// that must occur in each.
var wanted = []struct {
	prefix   string
	states   []string
	verdicts []conntrack.Verdict
}{
	{"", []string{"none"}, []conntrack.Verdict{conntrack.Dropped, conntrack.Related, conntrack.New, conntrack.Invalid}},
	{
		"tcp ",
		[]string{"SYN_SENT", "SYN_SENT2", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"},
		[]conntrack.Verdict{conntrack.Established, conntrack.Invalid},
	},
	{
		"sctp ",
		[]string{"CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"},
		[]conntrack.Verdict{conntrack.Established, conntrack.Invalid},
	},
	{
		"protocol ",
		[]string{
			"1 unanswered", "1 answered", "58 unanswered", "58 answered", "17 unanswered", "17 answered", "136 unanswered", "136 answered",
			"47 unanswered", "47 answered", "50 unanswered", "50 answered", "253 unanswered", "253 answered",
		},
		[]conntrack.Verdict{conntrack.Established},
	},
}

// enough is the number of exchanges that reach all wanted states with any seed.
const enough = 10000

// report prints the reached states, the explained differences and the unexplained ones. It fails the
// test if a wanted state is missing.
func (c *comparison) report() {
	for _, w := range wanted {
		for _, state := range w.states {
			for _, verdict := range w.verdicts {
				key := fmt.Sprintf("%s%s, %v", w.prefix, state, verdict)
				if *exchanges >= enough && c.reached[key] == 0 {
					c.Errorf("no exchange reached %s", key)
				}
			}
		}
	}
	c.Logf("%d exchanges, %d of them with a pause too close to a timeout; packets by state and verdict:", *exchanges, c.close)
	for _, key := range slices.Sorted(maps.Keys(c.reached)) {
		c.Logf("%8d  %s", c.reached[key], key)
	}
	c.Log("packets that differ, by rule:")
	for _, why := range slices.Sorted(maps.Keys(c.differ)) {
		c.Logf("%8d  %s", c.differ[why], why)
	}
	for _, what := range slices.Sorted(maps.Keys(c.failed)) {
		c.Errorf("%8d exchanges: %s", c.failed[what], what)
	}
}
