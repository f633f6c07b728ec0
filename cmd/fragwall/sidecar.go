package main

import (
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/daemon"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/sidecar"
	"fragwall/tun/handover"
)

// stateDirectory is the default directory in which a sidecar saves the state of its NIC.
const stateDirectory = "/run/fragwall"

func newSidecarCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sidecar -c FILE --nic NIC",
		Short: "Filter the traffic of this network namespace at its NIC",
		Long: `Filter the traffic of this network namespace, a container's or a host's, between
its network stack and its NIC. The addresses, routes, neighbours, MTU and MAC move
to the inside TAP, and the NIC is joined to the outside TAP. Open connections stay
open. SIGTERM and SIGINT restore the NIC. After a kill, the namespace is cut off
until the next start, which restores the NIC first.

Prints a line with the word "ready" on stderr once frames flow.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	nic := c.Flags().String("nic", "", "`interface` that has the addresses (required)")
	directory := c.Flags().String("state", stateDirectory, "`directory` for the state of the NIC and the flows; it must outlive the process, but not the namespace")
	noState := c.Flags().Bool("no-state", false, "do not save flows at a stop, and do not read them at a start; the state of the NIC is always saved")
	options := daemonFlags(c)
	dryRun := c.Flags().Bool("dry-run", false, "print what it would do, and exit")
	restore := c.Flags().Bool("restore", false, "restore the NIC from the state of a killed sidecar, and exit")
	c.MarkFlagsMutuallyExclusive("dry-run", "restore")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		switch {
		case *nic == "":
			return exit.Usagef("no interface given; add --nic NIC")
		case *path == "" && !*restore:
			return exit.Usagef("no configuration file given; add -c FILE")
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		store, err := handover.NewStore(*directory, *nic)
		if err != nil {
			return err
		}
		if *restore {
			return sidecar.Restore(*nic, store, log)
		}
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		loaded := *config
		if err := sidecar.Fit(config, *nic); err != nil {
			return exit.Usagef("%s: %w", *path, err)
		}
		if *dryRun {
			return sidecar.PrintPlan(c.OutOrStdout(), config, store)
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		options.State = daemon.State{Directory: *directory, Given: true, Discard: *noState}
		s, err := daemon.NewStartup(*path, &loaded)
		if err != nil {
			return err
		}
		return sidecar.Run(ctx, newDaemon(c, options, s), config, store)
	}
	return c
}
