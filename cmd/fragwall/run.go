package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/confine"
)

func newRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Join the two sides and forward until SIGTERM or SIGINT",
		Long: `Join the two sides and forward until SIGTERM or SIGINT. A line with the word
"ready" goes to stderr once frames flow. SIGHUP, or "fragwall reload", reads the
rules again. SIGUSR1 prints the counters.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	k := controlFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		o, err := newOperator(c.ErrOrStderr(), *path, config)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = serve(ctx, config, o.log, o.events, func(b *box) {
			o.begin(ctx, b, k)
			o.helpers.Go(func() { b.watchNICs(ctx, config, o.log) })
			o.confine(confine.Plan{})
			o.ready("inside", config.Inside.TAP, "outside", config.Outside.TAP, "policy", config.Summary())
		})
		stop()
		o.end()
		return err
	}
	return c
}
