package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/terminal"
)

func newReloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload [-c FILE | --socket PATH]",
		Short: "Have the running instance read its rules again",
		Long: `Ask the running instance to read its configuration and the files of its sets
again, and print the outcome. A file with mistakes changes nothing. Where
several instances run, -c or --socket says which one is meant.`,
		Args: usageArgs(noArguments),
	}
	var instance control.Instance
	instanceFlags(c, &instance)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := instance.Reload()
		if err != nil {
			return err
		}
		if o.Code != 0 {
			fmt.Fprintln(c.ErrOrStderr(), terminal.PrintableLines(o.Text))
			return exit.Code(o.Code)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), terminal.PrintableLines(o.Text))
		return err
	}
	return c
}
