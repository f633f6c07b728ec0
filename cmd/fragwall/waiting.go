package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/selector"
)

// waitingFlags are the flags of waiting.
type waitingFlags struct {
	watchFlags
	client         inspect.Client
	query          listing.Query
	json, bySource bool
}

func newWaitingCommand() *cobra.Command {
	f := &waitingFlags{}
	c := &cobra.Command{
		Use:   "waiting [FILTER] [--by-source] [--json] [--watch] [-n N]",
		Short: "List the incomplete datagrams of a running instance",
		Long: `List the incomplete datagrams of a running instance, oldest first, one per line:
received and missing bytes of the payload ("4344-" if the end is not known),
memory in bytes, and the time left. FILTER is any of --proto, --host, --src, --dst,
--port, --sport, --dport, --vlan and --from; all given ones must match. Ports, and
the protocol of IPv6, are known only while the first fragment is held.

STATE is "waiting"; in fragments.mode "validate", the verdict on the first
fragment, which the others follow; or "poisoned" and the reason for a discarded
datagram, whose fragments are dropped until the deadline.

--by-source lists the sources of incomplete datagrams, /24 prefixes of IPv4 and
/56 prefixes of IPv6, most memory first.`,
		Args: usageArgs(noArguments),
	}
	f.query.Selector = selector.Flags(c)
	flags := c.Flags()
	flags.BoolVar(&f.bySource, "by-source", false, "list the sources of the datagrams, most memory first")
	flags.IntVarP(&f.query.Limit, "lines", "n", 0, "list at most this `number`; 0 for all")
	flags.BoolVar(&f.json, "json", false, "print one JSON object per line")
	addWatchFlags(c, &f.watchFlags)
	instanceFlags(c, &f.client.Instance)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := errors.Join(f.check(c), f.query.Check()); err != nil {
			return &exit.UsageError{Err: err}
		}
		return f.show(c, f.json, f.list)
	}
	return c
}

// list writes the datagrams or sources, in at most rows lines if rows is not 0.
func (f *waitingFlags) list(ctx context.Context, to io.Writer, rows int) error {
	q := f.query
	if rows > 0 && (q.Limit == 0 || rows < q.Limit) {
		q.Limit = rows
	}
	if f.bySource {
		sources, err := f.client.Sources(ctx, q)
		if err != nil {
			return err
		}
		table := listing.NewSourceTable(to)
		return writeList(to, f.json, sources, table.Add, table.Flush)
	}
	waiting, err := f.client.Waiting(ctx, q)
	if err != nil {
		return err
	}
	table := listing.NewWaitingTable(to)
	return writeList(to, f.json, waiting, table.Add, table.Flush)
}

// writeList writes records as JSON lines, or with the functions of a table: add adds a row, and
// flush writes the rest.
func writeList[T any](to io.Writer, asJSON bool, records []T, add func(*T) error, flush func() error) error {
	if asJSON {
		w := bufio.NewWriter(to)
		encoder := json.NewEncoder(w)
		add, flush = func(r *T) error { return encoder.Encode(r) }, w.Flush
	}
	for i := range records {
		if err := add(&records[i]); err != nil {
			return err
		}
	}
	return flush()
}
