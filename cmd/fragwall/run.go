package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/filter"
	"fragwall/rules"
)

func newRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Join the two sides and forward until SIGTERM or SIGINT",
		Long: `Join the two sides and forward until SIGTERM or SIGINT. A line with the word
"ready" goes to stderr once frames flow. SIGHUP, or "fragwall reload", reads the
rules again. SIGUSR1 prints the counters.`,
		Args: usageArgs(cobra.NoArgs),
	}
	path := configFlag(c)
	k := controlFlags(c)
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
		var helpers sync.WaitGroup
		err = serve(ctx, config, log, (&matchLog{log: log}).matched, func(b *box) {
			running = b
			r := b.reloader(*path, config, log)
			helpers.Go(func() { answer(ctx, signals, b, r, c) })
			k.open(ctx, &helpers, config, r)
			log.Info("ready", "inside", config.Inside.TAP, "outside", config.Outside.TAP, "policy", config.Summary())
		})
		stop()
		helpers.Wait()
		if running != nil {
			_ = writeCounters(c.ErrOrStderr(), running.Bump)
		}
		return err
	}
	return c
}

// reloader returns what reads the configuration of a running box again, and
// keeps the process within what its policy and fragments need.
func (b *box) reloader(path string, config *rules.Config, log *slog.Logger) *reloader {
	limitMemory(b, config.Fragments.Memory)
	return &reloader{path: path, log: log, config: config, apply: func(p *filter.Policy) {
		b.Reload(p)
		limitMemory(b, config.Fragments.Memory)
	}}
}

// controls are the ways to have a running box read its rules again, besides
// SIGHUP.
type controls struct {
	socket string // "" for the default
	watch  bool
}

func controlFlags(c *cobra.Command) *controls {
	k := &controls{}
	c.Flags().StringVar(&k.socket, "socket", "", "control socket `path` for reload (default: made of the TAPs' names, in /run/fragwall for root)")
	c.Flags().BoolVar(&k.watch, "watch-config", false, "reload when the configuration, or a file beside it, changes")
	return k
}

// open lets the box be controlled until ctx is done.
func (k *controls) open(ctx context.Context, helpers *sync.WaitGroup, config *rules.Config, r *reloader) {
	openSocket(ctx, helpers, k.socket, config, r)
	if !k.watch {
		return
	}
	w, err := newWatcher(r.path)
	if err == nil {
		err = w.follow()
	}
	if err != nil {
		r.log.Warn("the configuration is not watched", "error", err)
		return
	}
	helpers.Go(func() { w.run(ctx, r.log, func() { r.reload() }) })
}

// openSocket serves the control socket until ctx is done. Where it can't be
// had, SIGHUP still reloads.
func openSocket(ctx context.Context, helpers *sync.WaitGroup, path string, config *rules.Config, r *reloader) {
	var err error
	if path == "" {
		path, err = socketPath(config)
	}
	if err == nil {
		l, failed := listenSocket(path)
		if failed == nil {
			helpers.Go(func() { serveSocket(ctx, l, r.requests()) })
			return
		}
		err = failed
	}
	r.log.Warn("no control socket: only SIGHUP reloads", "error", err)
}

// answer prints the counters at SIGUSR1 and reloads at SIGHUP until ctx is
// done.
func answer(ctx context.Context, signals <-chan os.Signal, b *box, r *reloader, c *cobra.Command) {
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				r.reload()
				continue
			}
			_ = writeCounters(c.ErrOrStderr(), b.Bump)
		case <-ctx.Done():
			return
		}
	}
}
