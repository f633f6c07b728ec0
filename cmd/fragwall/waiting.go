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

// waitingFlags say which datagrams are meant.
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
		Short: "List the datagrams of a running instance that wait for fragments",
		Long: `List the datagrams that wait for fragments in a running instance, the oldest first,
one a line: which bytes of the payload came and which are missing ("4344-" where
the end is not known), the memory that they take in bytes, and the time that is
left. FILTER is any of --proto, --host, --src, --dst, --port, --sport, --dport, --vlan
and --from, all of which must match. The ports are known once the first fragment
waits, and the protocol of IPv6 as well.

STATE is "waiting", or what became of the first fragment in fragments.mode
"validate": the others follow it. "poisoned" is of datagrams that were given up, and
why: nothing of them passes until their time is up.

--by-source lists the prefixes, /24 of IPv4 and /56 of IPv6, whose hosts count as
one sender, with what they have in waiting: who holds most memory first.`,
		Args: usageArgs(noArguments),
	}
	f.query.Selector = selector.Flags(c)
	flags := c.Flags()
	flags.BoolVar(&f.bySource, "by-source", false, "list who sent the datagrams, who holds most memory first")
	flags.IntVarP(&f.query.Limit, "lines", "n", 0, "list at most this `number`; 0 for all")
	flags.BoolVar(&f.json, "json", false, "print one JSON object a line")
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

// list writes what is asked for, in no more than rows lines where that is not 0.
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

// writeList writes records as JSON lines, or by what adds them to a table and
// what writes the last of them.
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
