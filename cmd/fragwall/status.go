package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/rules"
)

const (
	watchEvery = time.Second
	// minInterval keeps a mistyped interval from asking without a pause.
	minInterval = 100 * time.Millisecond
)

// statusFlags say whom to ask, and what for.
type statusFlags struct {
	address, tokenFile string
	instance           control.Instance
	rule               string // the only one to show, "" for all there is
	json, watch        bool
	interval           time.Duration // of watching
}

func newStatusCommand() *cobra.Command {
	f := &statusFlags{}
	c := &cobra.Command{
		Use:   "status [--address HOST:PORT | -c FILE | --socket PATH] [--rule NAME] [--json] [--watch [--interval D]]",
		Short: "Show a running instance's counters",
		Long: `Ask a running instance what became of the frames of both sides, what waits, and
what the rules decided on: by the address in its status.listen or, with -c or
--socket, over its control socket, as "fragwall reload" does. The control socket
also works where the instance has no status server.`,
		Args: usageArgs(noArguments),
	}
	c.Flags().StringVar(&f.address, "address", "127.0.0.1:9477", "address and port of the instance, as `HOST:PORT`")
	instanceFlags(c, &f.instance)
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`file` with the token that the instance wants")
	c.Flags().StringVar(&f.rule, "rule", "", "show the counters of the rule of this `name` only")
	c.Flags().BoolVar(&f.json, "json", false, "print the answer of /api/status, or with --rule that rule's part of it; with --watch, one a line")
	c.Flags().BoolVar(&f.watch, "watch", false, "ask again and again and show rates; in place on a terminal")
	c.Flags().DurationVar(&f.interval, "interval", watchEvery, "`time` from one answer to the next, with --watch")
	c.MarkFlagsMutuallyExclusive("address", "config", "socket")
	c.MarkFlagsMutuallyExclusive("token-file", "config")
	c.MarkFlagsMutuallyExclusive("token-file", "socket")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case c.Flags().Changed("interval") && !f.watch:
			return &exit.UsageError{Err: errors.New("--interval is of --watch; add --watch")}
		case f.interval < minInterval:
			return exit.Usagef("--interval: %s is too short; want %s or more", f.interval, minInterval)
		}
		ask, err := f.reporter()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return f.run(ctx, ask, c.OutOrStdout())
	}
	return c
}

// reporter returns what asks the instance that the flags name.
func (f *statusFlags) reporter() (control.Reporter, error) {
	if f.instance != (control.Instance{}) {
		return f.instance.Reporter()
	}
	token, err := status.ReadToken(f.tokenFile, rules.ReadWithin)
	if err != nil {
		return nil, exit.Usagef("--token-file: %w", err)
	}
	return control.OverHTTP(f.address, token), nil
}

// run shows the status once or, with --watch, each interval until ctx is done.
func (f *statusFlags) run(ctx context.Context, ask control.Reporter, w io.Writer) error {
	if !f.watch {
		r, raw, err := ask(ctx)
		if err != nil {
			return err
		}
		return f.show(w, raw, r, nil)
	}
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	var before *report.Report
	for {
		r, raw, err := ask(ctx)
		if ctx.Err() != nil {
			return nil // as the user wanted
		}
		if err != nil {
			return err
		}
		if err := f.show(w, raw, r, before); err != nil {
			return err
		}
		before = r
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// show writes one answer, at once, so that a terminal does not flicker.
func (f *statusFlags) show(w io.Writer, raw []byte, r, before *report.Report) error {
	table := func(to io.Writer) { r.WriteTables(to, before) }
	if f.rule != "" {
		i := slices.IndexFunc(r.Rules, func(rule report.Rule) bool { return rule.Name == f.rule })
		if i < 0 {
			return fmt.Errorf("--rule: the policy in force has no rule %q", f.rule)
		}
		rule := &r.Rules[i]
		var err error
		if raw, err = json.Marshal(rule); err != nil {
			return err
		}
		raw = append(raw, '\n')
		table = func(to io.Writer) { r.WriteRule(to, rule, before) }
	}
	var text strings.Builder
	switch {
	case f.json:
		text.Write(raw)
	case f.watch && terminal.Is(w):
		table(&text)
		fitted := terminal.Fit(text.String(), terminal.Size(w))
		text.Reset()
		text.WriteString("\x1b[H\x1b[J" + fitted) // to the top left, and clear what is below
	default:
		if before != nil {
			text.WriteByte('\n')
		}
		table(&text)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
