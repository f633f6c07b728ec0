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
	"slices"
	"strings"
	"time"

	"fragwall/integration/middle"
	"fragwall/tun/lab"
)

func main() {
	p := middle.Program{Name: "attack", Measure: attack, Generate: generate}
	p.Main()
}

// options holds the command-line options.
type options struct {
	quick    bool
	duration time.Duration
	rounds   int
	attempts int
	middles  []string
	rows     *regexp.Regexp
	verbose  bool
	update   string
}

func parseOptions() (o options, err error) {
	flag.BoolVar(&o.quick, "quick", false, "only a few short trials")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "duration of each trial")
	flag.IntVar(&o.rounds, "rounds", 1, "number of runs of every trial; the tables show medians")
	flag.IntVar(&o.attempts, "attempts", 3, "maximum number of attempts per trial while other processes use the CPUs; the least disturbed attempt counts")
	middles := flag.String("middles", "", "run only these middles (comma-separated: cable, bridge, conntrack, reassemble, validate)")
	rows := flag.String("rows", "", "run only rows whose \"table: flood\" matches this regular expression")
	flag.BoolVar(&o.verbose, "v", false, "print the output of fragwall for each trial")
	flag.StringVar(&o.update, "update", "", "also replace the tables in this file")
	flag.StringVar(&program, "fragwall", "", "path of the fragwall binary (default: build it)")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *middles != "" {
		o.middles = strings.Split(*middles, ",")
	}
	o.rows, err = regexp.Compile(*rows)
	return o, err
}

// attack runs the plans and prints their tables. If it does not run as root, it uses a
// user namespace.
func attack(ctx context.Context) error {
	rerun, code, err := lab.Enter(ctx)
	if rerun && err == nil {
		os.Exit(code)
	}
	if err != nil {
		return err
	}
	o, err := parseOptions()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return fmt.Errorf("%w: install nftables", err)
	}
	if program == "" {
		built, remove, err := middle.Build(ctx)
		if err != nil {
			return err
		}
		defer remove()
		program = built
	}
	plans := fullPlans()
	if o.quick {
		plans, o.duration, o.attempts = quickPlans(), 2*time.Second, 1
	}
	var all bytes.Buffer
	for i := range plans {
		t, err := o.measure(ctx, &plans[i])
		if err != nil {
			return err
		}
		if len(t.rows) > 0 && len(t.columns) > 0 {
			t.write(&all)
		}
	}
	fmt.Print(all.String())
	if o.update != "" {
		return middle.Update(o.update, all.Bytes())
	}
	return nil
}

// measure runs the selected trials of a plan. Each round runs all of them, so that other
// load on the machine affects them equally.
func (o *options) measure(ctx context.Context, p *plan) (*table, error) {
	p.rows = slices.DeleteFunc(p.rows, func(r row) bool { return !o.rows.MatchString(p.title + ": " + r.label) })
	p.columns = slices.DeleteFunc(slices.Clone(p.columns), func(m column) bool {
		return o.middles != nil && !slices.Contains(o.middles, m.name)
	})
	t := &table{plan: p, cells: make([][]cell, len(p.rows))}
	for i := range t.cells {
		t.cells[i] = make([]cell, len(p.columns))
	}
	for range o.rounds {
		for i, r := range p.rows {
			for j, m := range p.columns {
				result, err := p.trial(r, m, o.duration).best(ctx, o.attempts)
				if err = errors.Join(err, ctx.Err()); err != nil {
					return nil, fmt.Errorf("%s: %s: %w", m.name, r.label, err)
				}
				t.cells[i][j] = append(t.cells[i][j], result)
				fmt.Fprintf(os.Stderr, "%-10s %-70s %.1f kpps, %d of %d, %s; others used %.2f\n", m.name, r.label,
					result.rate/1000, result.came, result.sent, cost(cell{result}), result.foreign)
				if o.verbose {
					fmt.Fprint(os.Stderr, result.says)
				}
			}
		}
	}
	return t, nil
}
