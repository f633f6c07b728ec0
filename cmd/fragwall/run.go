package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Join the two sides and forward until SIGTERM or SIGINT",
		Long: `Join the two sides and forward until SIGTERM or SIGINT. A line with the word
"ready" goes to stderr once frames flow. SIGUSR1 prints the counters.`,
		Args: usageArgs(cobra.NoArgs),
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGHUP)
		defer signal.Stop(signals)

		var running *box
		err = serve(ctx, config, (&matchLog{log: log}).matched, func(b *box) {
			running = b
			go answer(ctx, signals, b, c, log)
			log.Info("ready", "inside", config.Inside.TAP, "outside", config.Outside.TAP, "policy", config.Summary())
		})
		if running != nil {
			_ = writeCounters(c.ErrOrStderr(), running.Bump)
		}
		return err
	}
	return c
}

// answer prints the counters at SIGUSR1 until ctx is done.
func answer(ctx context.Context, signals <-chan os.Signal, b *box, c *cobra.Command, log *slog.Logger) {
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				log.Error("reload is not supported yet: the rules stay as they are")
				continue
			}
			_ = writeCounters(c.ErrOrStderr(), b.Bump)
		case <-ctx.Done():
			return
		}
	}
}
