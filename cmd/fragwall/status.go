package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/rules"
)

// statusFlags are the flags of status.
type statusFlags struct {
	address, tokenFile string
	instance           control.Instance
	rule               string // show only this rule; "" for everything
	json               bool
	watchFlags
}

func newStatusCommand() *cobra.Command {
	f := &statusFlags{}
	c := &cobra.Command{
		Use:   "status [--address HOST:PORT | -c FILE | --socket PATH] [--rule NAME] [--json] [--watch [--interval D]]",
		Short: "Show the counters of a running instance",
		Long: `Show the counters of a running instance: frames of both sides, incomplete
datagrams, flows and rules. It asks the status server at --address or, with -c or
--socket, the control socket, which also works without a status server. --watch
adds rates.`,
		Args: usageArgs(noArguments),
	}
	c.Flags().StringVar(&f.address, "address", "127.0.0.1:9477", "address and port of the instance, as `HOST:PORT`")
	instanceFlags(c, &f.instance)
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`file` with the token of the status server")
	c.Flags().StringVar(&f.rule, "rule", "", "show only the rule with this `name`")
	c.Flags().BoolVar(&f.json, "json", false, "print the object of /api/status, or with --rule the one of that rule; with --watch, one per line")
	addWatchFlags(c, &f.watchFlags)
	c.MarkFlagsMutuallyExclusive("address", "config", "socket")
	c.MarkFlagsMutuallyExclusive("token-file", "config")
	c.MarkFlagsMutuallyExclusive("token-file", "socket")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := f.check(c); err != nil {
			return err
		}
		ask, err := f.reporter()
		if err != nil {
			return err
		}
		var before *report.Report
		return f.show(c, f.json, func(ctx context.Context, to io.Writer, _ int) error {
			r, raw, err := ask(ctx)
			if err != nil {
				return err
			}
			err = f.write(to, raw, r, before)
			before = r
			return err
		})
	}
	return c
}

// reporter returns a client for the instance that the flags select.
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

// write writes one answer. before is the previous answer, for rates, or nil.
func (f *statusFlags) write(to io.Writer, raw []byte, r, before *report.Report) error {
	rule := &report.Rule{}
	if f.rule != "" {
		i := slices.IndexFunc(r.Rules, func(rule report.Rule) bool { return rule.Name == f.rule })
		if i < 0 {
			return fmt.Errorf("--rule: the policy in force has no rule %q", f.rule)
		}
		rule = &r.Rules[i]
	}
	switch {
	case f.json && f.rule != "":
		return json.NewEncoder(to).Encode(rule)
	case f.json:
		_, err := to.Write(raw)
		return err
	}
	var text strings.Builder // collected, so that it is written at once
	if f.rule != "" {
		r.WriteRule(&text, rule, before)
	} else {
		r.WriteTables(&text, before)
	}
	_, err := io.WriteString(to, text.String())
	return err
}
