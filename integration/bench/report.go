package main

import (
	"fmt"
	"io"
	"slices"

	"fragwall/integration/middle"
)

// report prints two tables, of speed and of CPU time, and the load by other processes.
func (r *run) report(w io.Writer) {
	fmt.Fprintf(w, "Medians of %d rounds; the ratio is the median of the ratios of the rounds, with the lowest and the highest.\n\n", r.rounds)
	fmt.Fprintln(w, "| workload | compared with | baseline | fragwall | unit | ratio |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	r.rows(func(load workload, p pair, base, other []figure) {
		r.row(w, load.name, p, load.unit, base, other, func(f figure) float64 { return f.value })
		if base[0].p99 != 0 {
			r.row(w, load.name+", p99", p, load.unit, base, other, func(f figure) float64 { return f.p99 })
		}
	})
	fmt.Fprintf(w, "\nCPU seconds per gigabyte of payload: of the whole machine, sender and receiver included, and of fragwall's process.\n\n")
	fmt.Fprintln(w, "| workload | compared with | baseline | fragwall | its process | lost, baseline | lost, fragwall |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	r.rows(func(load workload, p pair, base, other []figure) {
		if base[0].cpu == 0 {
			return
		}
		cpu := func(f figure) float64 { return f.cpu }
		lost := func(f figure) float64 { return 100 * f.loss }
		fmt.Fprintf(w, "| %s%s | %s | %.2f | %.2f | %.2f | %.1f %% | %.1f %% |\n", load.name, suffix(p.other), p.base.name,
			median(base, cpu), median(other, cpu), median(other, func(f figure) float64 { return f.boxCPU }), median(base, lost), median(other, lost))
	})
	r.noise(w)
}

// rows calls f for each comparison.
func (r *run) rows(f func(w workload, p pair, base, other []figure)) {
	for i, w := range r.workloads {
		for _, p := range w.pairs {
			f(w, p, r.results[i][p.base.name], r.results[i][p.other.name])
		}
	}
}

// row prints one comparison of a value.
func (r *run) row(w io.Writer, name string, p pair, unit string, base, other []figure, value func(figure) float64) {
	var ratios []float64
	for i := range base {
		ratios = append(ratios, value(other[i])/value(base[i]))
	}
	self := func(f float64) float64 { return f }
	fmt.Fprintf(w, "| %s%s | %s | %s | %s | %s | **%.2f** (%.2f to %.2f) |\n", name, suffix(p.other), p.base.name,
		number(median(base, value)), number(median(other, value)), unit, median(ratios, self), slices.Min(ratios), slices.Max(ratios))
}

// suffix describes how the configuration of a fragwall middle differs from that of box10.
func suffix(s spec) (text string) {
	if s.mode == "validate" {
		text += ", `validate`"
	}
	if s.mode != "" && s.rules != box10.rules {
		text += fmt.Sprintf(", %s rules", thousands(s.rules))
	}
	if s.stateful {
		text += ", stateful"
	}
	if s.slow {
		text += ", fast path off"
	}
	return text
}

// thousands formats a number below one million with a thousands separator.
func thousands(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}

// number formats a value with about three significant digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// median returns the median of value over a list.
func median[T any](list []T, value func(T) float64) float64 {
	var values []float64
	for _, v := range list {
		values = append(values, value(v))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// noise prints how much CPU time other processes used.
func (r *run) noise(w io.Writer) {
	disturbed, most := 0, 0.0
	for _, byMiddle := range r.results {
		for _, figures := range byMiddle {
			for _, f := range figures {
				most = max(most, f.foreign)
				if f.foreign >= middle.QuietEnough {
					disturbed++
				}
			}
		}
	}
	if disturbed == 0 {
		fmt.Fprintf(w, "\nThe machine was quiet: other processes used less than %.2f cores during each of the %d trials.\n", middle.QuietEnough, r.all)
		return
	}
	fmt.Fprintf(w, "\n**The machine was too noisy**: during %d of the %d trials other processes used %.2f cores or more, and up to %.2f. Only the quiet rounds among them are meaningful.\n",
		disturbed, r.all, middle.QuietEnough, most)
}
