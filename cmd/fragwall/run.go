package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/confine"
)

func newRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE [--last-good DIR]",
		Short: "Join the two sides and forward until SIGTERM or SIGINT",
		Long: `Join the two sides and forward until SIGTERM or SIGINT. A line with the word
"ready" goes to stderr once frames flow. SIGHUP, or "fragwall reload", reads the
rules again. SIGUSR1 prints the counters.

With --last-good, the configuration that runs is kept in a directory that only
this user can write to, with the files that it names, and again after each
reload. Where FILE is broken at a start, the kept one runs in its place; the log,
the status and a metric say so, until a reload of FILE succeeds.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	k := controlFlags(c)
	lastGood := c.Flags().String("last-good", "", "`directory` to keep the configuration in that runs, and to start with it where FILE is broken")
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := openKeeper(*lastGood).start(c, *path)
		if err != nil {
			return err
		}
		o, config := newOperator(c.ErrOrStderr(), *path, s), s.config
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = serve(ctx, config, o.log, o.events, func(b *box) {
			o.begin(ctx, b, k)
			o.helpers.Go(func() { newLinkWatch(b, config, o.log, o.events).run(ctx) })
			o.confine(confine.Plan{})
			o.ready("inside", config.Inside.TAP, "outside", config.Outside.TAP, "policy", config.Summary())
		})
		stop()
		o.end()
		return err
	}
	return c
}
