package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/lab"
)

//go:embed demo.toml
var configuration []byte

// Run runs the demonstration. It prints for each exchange whether the result is what the policy
// says. Without the right to create namespaces, it runs the program again in a user namespace
// and returns its exit code.
func Run(ctx context.Context, w io.Writer) (code int, err error) {
	rerun, code, err := lab.Enter(ctx)
	switch {
	case err != nil:
		return 0, fmt.Errorf("demo: %w", err)
	case rerun:
		return code, nil
	}
	return 0, demonstrate(ctx, w)
}

// demonstrate creates the hosts and the box, and runs the exchanges.
func demonstrate(ctx context.Context, w io.Writer) error {
	config, err := rules.Parse("demo.toml", configuration)
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
	running := make(chan *box.Box, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- network.Middle.Do(func() error {
			return forward(ctx, config, running)
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

// forward creates the box, sends it to running, and forwards until ctx is done.
func forward(ctx context.Context, config *rules.Config, running chan<- *box.Box) (err error) {
	b, err := box.Open(&box.Linux, box.Setup{Config: config, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	running <- b
	return b.Run(ctx)
}

// intro prints the hosts and the rules.
func intro(w io.Writer, n *lab.Network, c *rules.Config) {
	in, out := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	fmt.Fprintf(w, `
  inside host         fragwall, between two TAPs        outside host
  %-15s ──────── fw-in │ fw-out ──────────── %s
  %-15s          fragments %s        %s

Rules (the first that matches decides, otherwise %s):
`, in.IPv4, out.IPv4, in.IPv6, c.Fragments.Mode, out.IPv6, c.Policy.Default)
	for _, r := range c.Policy.Rules {
		fmt.Fprintf(w, "  %-6s %s\n", r.Action, r.Name)
	}
	fmt.Fprintln(w)
}

// printStep prints the result of a step.
func printStep(w io.Writer, what, detail string, err error) {
	result := "ok    "
	if err != nil {
		result, detail = "FAILED", err.Error()
	}
	fmt.Fprintf(w, "%s  %s\n        %s\n", result, what, strings.ReplaceAll(detail, "\n", "\n        "))
}
