package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/demo"
	"fragwall/cmd/fragwall/internal/exit"
)

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Demonstrate fragwall between two hosts in network namespaces",
		Long: `Create two hosts in network namespaces with fragwall between them, and run
fragmented exchanges that a rule accepts and that a rule denies. Exits with 0 only
if every exchange has the expected result. Cleans up at the end. Needs root, or
user namespaces and the right to open /dev/net/tun.`,
		Args: usageArgs(noArguments),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			code, err := demo.Run(ctx, c.OutOrStdout())
			if err == nil && code != 0 {
				err = exit.Code(code)
			}
			return err
		},
	}
}
