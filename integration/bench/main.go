package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"time"

	"fragwall/integration/middle"
)

func main() {
	p := middle.Program{Name: "bench", Measure: bench, Generate: generate}
	p.Main()
}

// options holds the command-line options.
type options struct {
	rounds  int
	seconds float64
	limit   time.Duration
	only    *regexp.Regexp
	program string
	verbose bool
	update  string
}

func parseOptions() (o options, err error) {
	flag.IntVar(&o.rounds, "rounds", 5, "number of runs of every workload over every middle")
	flag.Float64Var(&o.seconds, "seconds", 1.6, "duration of each trial")
	flag.DurationVar(&o.limit, "limit", 8*time.Minute, "planned duration of the whole run; while the run is late, disturbed trials are not repeated")
	only := flag.String("only", "", "run only workloads whose name matches this regular expression")
	flag.StringVar(&o.program, "fragwall", "", "path of the fragwall binary (default: build it)")
	flag.BoolVar(&o.verbose, "v", false, "print the output of each fragwall process")
	flag.StringVar(&o.update, "update", "", "also replace the tables in this file")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.rounds < 1:
		return o, fmt.Errorf("%d rounds: at least 1 is needed", o.rounds)
	case o.seconds < 1:
		return o, fmt.Errorf("trials of %v s: at least 1 s is needed, because shorter trials mostly measure their start", o.seconds)
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

// bench runs the workloads and prints the tables.
func bench(ctx context.Context) (err error) {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	for _, program := range []string{"nft", "ethtool", "iperf3", "ping"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	if runtime.NumCPU() < 2 {
		return errors.New("sender and receiver need one CPU each, but the machine has only one")
	}
	if o.program == "" {
		program, remove, err := middle.Build(ctx)
		if err != nil {
			return err
		}
		defer remove()
		o.program = program
	}
	r := newRun(o)
	defer func() { err = errors.Join(err, r.close()) }()
	for round := range o.rounds {
		if err := r.round(ctx, round); err != nil {
			return err
		}
	}
	var tables bytes.Buffer
	r.report(&tables)
	fmt.Print(tables.String())
	if o.update != "" {
		return middle.Update(o.update, tables.Bytes())
	}
	return nil
}

// run holds the middles and the results of one run of the program.
type run struct {
	options
	workloads []workload
	spots     map[string]*spot      // by name
	results   []map[string][]figure // by workload and middle, one per round
	start     time.Time
	done, all int // trials
}

func newRun(o options) *run {
	r := &run{options: o, spots: map[string]*spot{}, start: time.Now()}
	for _, w := range workloads() {
		if o.only.MatchString(w.name) {
			r.workloads = append(r.workloads, w)
			r.results = append(r.results, map[string][]figure{})
			r.all += len(middlesOf(w.pairs)) * o.rounds
		}
	}
	return r
}

// round runs every workload over its middles, in alternating order.
func (r *run) round(ctx context.Context, round int) error {
	for i, w := range r.workloads {
		middles := middlesOf(w.pairs)
		if round%2 == 1 {
			slices.Reverse(middles)
		}
		for _, m := range middles {
			f, err := r.trial(ctx, w, m)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return fmt.Errorf("%s: %s: %w", m.name, w.name, err)
			}
			r.results[i][m.name] = append(r.results[i][m.name], f)
			fmt.Fprintf(os.Stderr, "%d/%d %-28s %-40s %8.2f %s, lost %.1f %%, others used %.2f cores\n",
				r.done, r.all, m.name, w.name, f.value, w.unit, 100*f.loss, f.foreign)
		}
	}
	return nil
}

const (
	// attempts is the maximum number of runs of a trial.
	attempts = 4
	// quietTimeout is the maximum time that a trial waits until other processes use little CPU time.
	quietTimeout = 3 * time.Second
)

// trial runs a workload over a middle. While time permits, it repeats the workload if other
// processes disturbed it. It returns the least disturbed figure.
func (r *run) trial(ctx context.Context, w workload, m spec) (best figure, err error) {
	p, err := r.spot(m)
	if err != nil {
		return best, err
	}
	r.done++
	for i := range attempts {
		ahead := time.Since(r.start) < r.limit*time.Duration(r.done)/time.Duration(r.all)
		if i > 0 && !ahead {
			break
		}
		if ahead {
			middle.AwaitQuiet(ctx, quietTimeout)
		}
		o := &observer{box: p.box}
		f, err := w.run(p, r.seconds, o)
		if err != nil {
			return best, err
		}
		if f.foreign = o.foreign; i == 0 || f.foreign < best.foreign {
			best = f
		}
		if best.foreign < middle.QuietEnough || ctx.Err() != nil {
			break
		}
	}
	return best, nil
}

// spot returns a middle, and sets it up if this is its first use.
func (r *run) spot(m spec) (*spot, error) {
	if p := r.spots[m.name]; p != nil {
		return p, nil
	}
	p, err := m.up(r.program)
	if err == nil {
		r.spots[m.name] = p
	}
	return p, err
}

func (r *run) close() error {
	var errs []error
	for _, p := range r.spots {
		says, err := p.down()
		errs = append(errs, err)
		if r.verbose {
			fmt.Fprintf(os.Stderr, "%s:\n%s", p.name, says)
		}
	}
	return errors.Join(errs...)
}
