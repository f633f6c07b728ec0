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
		Short: "Show the main job between two hosts in namespaces of its own",
		Long: `Show the main job: two hosts in network namespaces of their own, the box
between them, fragmented exchanges that a rule accepts and such that a rule
denies. Exits with 0 only if all went as it should, and leaves nothing behind.
Needs root, or user namespaces and the right to open /dev/net/tun.`,
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
