package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/rules"
)

func newCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check -c FILE [--expect FILE [--json]]",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file. Prints a one-line summary and notes on rules
that cannot work; or every mistake, one per line, as FILE:LINE: what is wrong, and
a suggested fix. At most 20 mistakes of each file are printed, and how many more
there are.

--expect names a file of datagrams and expected verdicts: [[expect]] tables with
the fields of "fragwall explain". Prints one line for each expectation that is not
met, as FILE:LINE: what was expected, and what decides; then exits with 1.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	expect := c.Flags().String("expect", "", "`file` of expected verdicts")
	asJSON := c.Flags().Bool("json", false, "print the result of each expectation as a JSON object per line, instead of the summaries")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *asJSON && *expect == "" {
			return exit.Usagef("--json needs --expect; add --expect FILE; see %q", c.CommandPath()+" --help")
		}
		config, expected, err := loadBoth(c, *path, *expect)
		if err != nil {
			return err
		}
		if _, err := status.Token(*path, config, rules.ReadWithin); err != nil {
			return err
		}
		for _, note := range append(config.Notes, config.Remarks()...) {
			fmt.Fprintln(c.ErrOrStderr(), note)
		}
		// The notes already cover MTUs that the file sets. An MTU that the file leaves out is
		// read from the NIC, if this machine has that NIC.
		if with, err := box.Linux.WithMTUs(config); err == nil && (config.Inside.MTU == 0 || config.Outside.MTU == 0) {
			if text := box.MTUsDiffer(with.Inside.MTU, with.Outside.MTU); text != "" {
				fmt.Fprintf(c.ErrOrStderr(), "%s: note: %s\n", *path, text)
			}
		}
		if !*asJSON {
			fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", *path, config.Summary())
		}
		if *expect == "" {
			return nil
		}
		return compare(c, config, *expect, expected, *asJSON)
	}
	return c
}

// loadBoth reads the configuration and, if expect is not "", the file of expectations. It
// prints the mistakes in both.
func loadBoth(c *cobra.Command, path, expect string) (*rules.Config, []rules.Expectation, error) {
	config, err := loadConfig(c, path)
	if expect == "" {
		return config, nil, err
	}
	expected, wrong := rules.LoadExpectations(expect)
	if wrong != nil {
		wrong = exit.Printed(c.ErrOrStderr(), wrong)
	}
	return config, expected, cmp.Or(err, wrong)
}

// compare checks each expectation. It prints those that are not met or, as JSON, the result of
// each.
func compare(c *cobra.Command, config *rules.Config, file string, expected []rules.Expectation, asJSON bool) error {
	policy, unmet := explain.NewPolicy(config), 0
	out := bufio.NewWriter(c.OutOrStdout())
	objects := json.NewEncoder(out)
	for i := range expected {
		result := policy.Expect(file, &expected[i])
		if !result.Met {
			unmet++
		}
		switch {
		case asJSON:
			if err := objects.Encode(result); err != nil {
				return err
			}
		case !result.Met:
			fmt.Fprintln(c.ErrOrStderr(), result.Unmet())
		}
	}
	if !asJSON && unmet == 0 {
		fmt.Fprintf(out, "%s: %s met\n", file, terminal.Count(len(expected), "expectation"))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if unmet > 0 {
		return exit.Code(exit.Failed)
	}
	return nil
}

// loadConfig reads the configuration and prints its mistakes.
func loadConfig(c *cobra.Command, path string) (*rules.Config, error) {
	config, err := rules.Load(path)
	if err != nil {
		return nil, exit.Printed(c.ErrOrStderr(), err)
	}
	return config, nil
}
