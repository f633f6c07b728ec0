package main

import (
	"context"
	"errors"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/terminal"
)

const (
	watchEvery = time.Second
	// minInterval prevents polling without a pause after a typing error in --interval.
	minInterval = 100 * time.Millisecond
)

// watchFlags are the flags that show an answer repeatedly.
type watchFlags struct {
	watch    bool
	interval time.Duration
}

func addWatchFlags(c *cobra.Command, f *watchFlags) {
	c.Flags().BoolVar(&f.watch, "watch", false, "repeat, in place on a terminal")
	c.Flags().DurationVar(&f.interval, "interval", watchEvery, "`time` between two updates of --watch")
}

// check rejects an invalid interval.
func (f *watchFlags) check(c *cobra.Command) error {
	switch {
	case c.Flags().Changed("interval") && !f.watch:
		return &exit.UsageError{Err: errors.New("--interval needs --watch; add --watch")}
	case f.interval < minInterval:
		return exit.Usagef("--interval: %s is too short; want %s or more", f.interval, minInterval)
	}
	return nil
}

// show calls list once or, with --watch, once per interval until a signal ends it. lines is set
// for output that programs read, which has no empty lines or terminal codes. rows is the number
// of lines that fit on the terminal, or 0 for no limit.
func (f *watchFlags) show(c *cobra.Command, lines bool, list func(ctx context.Context, to io.Writer, rows int) error) error {
	w := c.OutOrStdout()
	if !f.watch {
		return list(c.Context(), w, 0)
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	for first := true; ; first = false {
		err := f.showOnce(ctx, w, lines, first, list)
		switch {
		case ctx.Err() != nil:
			return nil // ended by a signal
		case err != nil && (first || !errors.Is(err, control.ErrReplaced)): // otherwise the other process answers the next time
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// showOnce writes one answer. On a terminal, it does so in one write, to avoid flicker.
func (f *watchFlags) showOnce(ctx context.Context, w io.Writer, lines, first bool, list func(ctx context.Context, to io.Writer, rows int) error) error {
	if !terminal.Is(w) || lines {
		if !first && !lines {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		return list(ctx, w, 0)
	}
	size := terminal.Size(w)
	var text strings.Builder
	if err := list(ctx, &text, int(size.Row)); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\x1b[H\x1b[J"+terminal.Fit(text.String(), size)) // moves to the top left and clears everything below
	return err
}
