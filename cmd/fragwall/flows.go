package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/cmd/fragwall/internal/terminal"
)

// flowsFlags are the flags of flows.
type flowsFlags struct {
	watchFlags
	client      inspect.Client
	query       listing.Query
	json, count bool
	delete, all bool
}

func newFlowsCommand() *cobra.Command {
	f := &flowsFlags{}
	c := &cobra.Command{
		Use:   "flows [FILTER] [--json] [--watch] [--count] [--sort ORDER] [-n N] | flows --delete FILTER",
		Short: "List, count or end the flows of a running instance",
		Long: `List the flows of a running instance (policy.stateful), one per line. States have
the names of conntrack(8). FILTER is any of --proto, --host, --src, --dst, --port,
--sport, --dport, --vlan and --from; all given ones must match. Source, destination
and --from are those of the flow's first datagram; for ICMP, the destination also
has the type and identifier of the query. PACKETS and BYTES count IP packets with
their headers in that direction. FAST says whether the flow has a fast path entry.

--delete ends flows and prints how many. Their later datagrams are judged by the
rules as if there had been no flow. The instance logs the deletion.`,
		Args: usageArgs(noArguments),
	}
	f.query.Selector = selector.Flags(c)
	flags := c.Flags()
	flags.StringVar((*string)(&f.query.Sort), "sort", "", "sort `order`, greatest first: bytes, packets, age or idle")
	flags.IntVarP(&f.query.Limit, "lines", "n", 0, "list at most this `number` of flows; 0 for all")
	flags.BoolVar(&f.json, "json", false, "print one JSON object per line")
	flags.BoolVar(&f.count, "count", false, "print only the number of flows that FILTER matches")
	flags.BoolVar(&f.delete, "delete", false, "end the flows that FILTER matches, and print how many")
	flags.BoolVar(&f.all, "all", false, "with --delete: end all flows")
	addWatchFlags(c, &f.watchFlags)
	instanceFlags(c, &f.client.Instance)
	for _, other := range []string{"sort", "lines"} {
		c.MarkFlagsMutuallyExclusive("count", other)
	}
	for _, other := range []string{"count", "sort", "lines", "watch"} {
		c.MarkFlagsMutuallyExclusive("delete", other)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return f.run(c) }
	return c
}

func (f *flowsFlags) run(c *cobra.Command) error {
	if err := errors.Join(f.check(c), f.query.Check()); err != nil {
		return &exit.UsageError{Err: err}
	}
	switch selected := len(f.query.Selector) > 0; {
	case f.all && !f.delete:
		return &exit.UsageError{Err: errors.New("--all needs --delete; add --delete to end all flows")}
	case f.delete && f.all && selected:
		return &exit.UsageError{Err: errors.New("--all and a filter exclude each other; remove one of them")}
	case f.delete && !f.all && !selected:
		return &exit.UsageError{Err: errors.New("--delete without a filter would end all flows; add one, or --all")}
	case f.delete:
		return f.end(c)
	}
	return f.show(c, f.json, func(ctx context.Context, to io.Writer, rows int) error {
		if f.count {
			return f.writeCount(ctx, to)
		}
		stateful, err := f.list(ctx, to, rows)
		if err == nil && !stateful && !f.json {
			_, err = fmt.Fprintln(c.ErrOrStderr(), "note: the policy is stateless (policy.stateful), so there are no flows")
		}
		return err
	})
}

// end deletes the selected flows and prints how many.
func (f *flowsFlags) end(c *cobra.Command) error {
	n, err := f.client.DeleteFlows(c.Context(), f.query, f.all)
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(n)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s deleted\n", terminal.Count(n.Flows, "flow"))
	return err
}

func (f *flowsFlags) writeCount(ctx context.Context, to io.Writer) error {
	n, err := f.client.CountFlows(ctx, f.query)
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(to).Encode(n)
	}
	_, err = fmt.Fprintln(to, n.Flows)
	return err
}

// list writes the flows, in at most rows lines if rows is not 0.
func (f *flowsFlags) list(ctx context.Context, to io.Writer, rows int) (stateful bool, err error) {
	add, flush := flowWriter(to, f.json)
	q := f.query
	if rows > 0 && (q.Limit == 0 || rows < q.Limit) {
		q.Limit = rows
	}
	about, err := f.client.Flows(ctx, q, add)
	if err != nil { // write no table header without rows
		return false, err
	}
	return about.Stateful, flush()
}

// flowWriter returns a function that writes one flow, and one that flushes the rest at the end.
func flowWriter(to io.Writer, asJSON bool) (add func(*listing.Flow) error, flush func() error) {
	if asJSON {
		w := bufio.NewWriterSize(to, 64<<10)
		var line []byte
		return func(f *listing.Flow) error {
			line = append(f.AppendJSON(line[:0]), '\n')
			_, err := w.Write(line)
			return err
		}, w.Flush
	}
	table := listing.NewFlowTable(to)
	return table.Add, table.Flush
}
