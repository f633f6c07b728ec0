package main

import (
	"os"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/standby"
)

// newStandbyCommand returns the hidden command that the unit runs as ExecStop=. Users do not
// run it.
func newStandbyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "standby --unit UNIT -- run ARGUMENTS",
		Short:  "Have another process forward while systemd restarts the service",
		Hidden: true,
		Args: usageArgs(func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] != "run" {
				return exit.Usagef("want the arguments of the service, beginning with run")
			}
			return nil
		}),
	}
	unit := c.Flags().String("unit", "", "name of the service's `unit` (required)")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *unit == "" {
			return exit.Usagef("no unit given; add --unit UNIT")
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		return standby.Run(c.Context(), standby.Systemd{}, *unit, standby.Command{
			Path: program, Args: append(args, "--replace", "--standby"), Stderr: os.Stderr,
		})
	}
	return c
}
