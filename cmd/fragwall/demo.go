package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/integration/lab"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

//go:embed demo.toml
var demoConfig []byte

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
			rerun, code, err := lab.Enter(ctx)
			switch {
			case err != nil:
				return fmt.Errorf("demo: %w", err)
			case rerun && code != 0:
				return exit.Code(code)
			case rerun:
				return nil
			}
			return demonstrate(ctx, c.OutOrStdout())
		},
	}
}

// demonstrate makes the hosts and the box, and tells of each exchange whether
// it went as the policy says.
func demonstrate(ctx context.Context, w io.Writer) error {
	config, err := rules.Parse("demo.toml", demoConfig)
	if err != nil {
		return err
	}
	network, err := lab.New()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer network.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make(chan *box, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- network.Middle.Do(func() error {
			return serve(ctx, config, slog.New(slog.DiscardHandler), nil, func(b *box) { running <- b })
		})
	}()
	select {
	case err := <-ended:
		return errors.Join(err, ctx.Err())
	case b := <-running:
		intro(w, network, config)
		d := &demo{network: network, box: b, out: w}
		held := make(chan error, 1)
		go func() { held <- d.run() }()
		select {
		case err = <-held:
		case <-ctx.Done():
			err = errors.New("demo: interrupted")
		}
		cancel()
		return errors.Join(err, <-ended)
	}
}

// intro tells who is there, and what they may do.
func intro(w io.Writer, n *lab.Network, c *rules.Config) {
	in, out := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	fmt.Fprintf(w, `
  inside host         fragwall, between two TAPs        outside host
  %-15s ──────── fw-in │ fw-out ──────────── %s
  %-15s          fragments %s        %s

Rules, the first that matches decides; otherwise %s:
`, in.IPv4, out.IPv4, in.IPv6, c.Fragments.Mode, out.IPv6, c.Policy.Default)
	for _, r := range c.Policy.Rules {
		fmt.Fprintf(w, "  %-6s %s\n", r.Action, r.Name)
	}
	fmt.Fprintln(w)
}

// tell prints how a step ended.
func tell(w io.Writer, what, detail string, err error) {
	result := "ok    "
	if err != nil {
		result, detail = "FAILED", err.Error()
	}
	fmt.Fprintf(w, "%s  %s\n        %s\n", result, what, strings.ReplaceAll(detail, "\n", "\n        "))
}
