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
		Short: "Reload the rules of the running instance",
		Long: `Ask the running instance to read its configuration and set files again, and print
the result. A file with mistakes changes nothing. If several instances run, choose
one with -c or --socket.`,
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
