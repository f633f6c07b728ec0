package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// cell holds the results of one trial, one per round.
type cell []result

// median returns the median of f over the results of a cell.
func median[T cmp.Ordered](c cell, f func(*result) T) T {
	values := make([]T, len(c))
	for i := range c {
		values[i] = f(&c[i])
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// table is a plan with its results.
type table struct {
	*plan
	cells [][]cell // by row and column
}

// write prints a table of the share of delivered datagrams, TCP throughput or surviving connections
// per flood, and below it tables of rates, round-trip times and costs.
func (t *table) write(w io.Writer) {
	fmt.Fprintf(w, "### %s\n\n", t.title)
	what := func(c cell) string { return fmt.Sprintf("%.1f %%", 100*median(c, (*result).share)) }
	if t.tcp {
		what = func(c cell) string {
			return fmt.Sprintf("%.2f Gbit/s, %.1f %%", median(c, func(r *result) float64 { return r.tcp })/1e9, 100*median(c, (*result).share))
		}
	}
	if t.idle {
		what = func(c cell) string {
			return fmt.Sprintf("%.1f %%, %.1f %%", 100*median(c, (*result).survival), 100*median(c, (*result).share))
		}
	}
	t.grid(w, "flood", what)
	fmt.Fprintf(w, "\nRate that the flood reached, in thousands of frames per second:\n\n")
	t.grid(w, "flood", func(c cell) string {
		return fmt.Sprintf("%.1f", median(c, func(r *result) float64 { return r.rate })/1000)
	})
	if !t.idle {
		fmt.Fprintf(w, "\nRound trip of the probe, p50 / p99 in microseconds (-: too many probes were lost):\n\n")
		t.grid(w, "flood", func(c cell) string {
			return micros(median(c, func(r *result) time.Duration { return r.p50 })) + " / " + micros(median(c, func(r *result) time.Duration { return r.p99 }))
		})
	}
	fmt.Fprintf(w, "\nMemory in MiB (of the process, or the kernel's for fragments), CPU of the process in cores, missed frames:\n\n")
	t.grid(w, "flood", cost)
	fmt.Fprintf(w, "\nCores that other programs used:\n\n")
	t.grid(w, "flood", func(c cell) string {
		return fmt.Sprintf("%.2f", median(c, func(r *result) float64 { return r.foreign }))
	})
	fmt.Fprintln(w)
}

// micros formats a duration in microseconds, and 0 as "-".
func micros(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprint(d.Microseconds())
}

// cost formats the memory in MiB and, if known, the CPU time in cores and the lost frames.
func cost(c cell) string {
	memory := fmt.Sprintf("%.0f", float64(median(c, func(r *result) int64 { return r.memory }))/(1<<20))
	if !c[0].hasCPU {
		return memory
	}
	return fmt.Sprintf("%s, %.2f, %d", memory, median(c, func(r *result) float64 { return r.cpu }), median(c, func(r *result) uint64 { return r.lost }))
}

// grid prints a Markdown table with the text of each cell.
func (t *table) grid(w io.Writer, head string, text func(cell) string) {
	fmt.Fprintf(w, "| %s |", head)
	for _, m := range t.columns {
		fmt.Fprintf(w, " %s |", m.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(t.columns)))
	for i, r := range t.rows {
		fmt.Fprintf(w, "| %s |", r.label)
		for _, c := range t.cells[i] {
			if len(c) == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %s |", text(c))
		}
		fmt.Fprintln(w)
	}
}
