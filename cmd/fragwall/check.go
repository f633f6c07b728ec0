package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/status"
	"fragwall/rules"
)

func newCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file. Prints a one-line summary, and notes on what
can't work; or the mistakes, one a line, as FILE:LINE: what is wrong, and what
would be right: the first 20 of each file, and how many more there are.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		if _, err := status.Token(*path, config, rules.ReadWithin); err != nil {
			return err
		}
		for _, note := range append(config.Notes, config.Remarks()...) {
			fmt.Fprintln(c.ErrOrStderr(), note)
		}
		// What the file tells of the MTUs is in its notes. Where the NICs are not
		// there, as on another machine, nothing is known of theirs.
		if with, err := box.Linux.WithMTUs(config); err == nil && (config.Inside.MTU == 0 || config.Outside.MTU == 0) {
			if text := box.MTUsDiffer(with.Inside.MTU, with.Outside.MTU); text != "" {
				fmt.Fprintf(c.ErrOrStderr(), "%s: note: %s\n", *path, text)
			}
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", *path, config.Summary())
		return err
	}
	return c
}

// loadConfig reads the configuration and prints its mistakes.
func loadConfig(c *cobra.Command, path string) (*rules.Config, error) {
	config, err := rules.Load(path)
	if err != nil {
		return nil, exit.Printed(c.ErrOrStderr(), err)
	}
	return config, nil
}
