package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/confine"
	"fragwall/cmd/fragwall/internal/daemon"
	"fragwall/cmd/fragwall/internal/standby"
)

func newRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE [--last-good DIR] [--state DIR|--no-state] [--replace]",
		Short: "Forward between the two sides until SIGTERM or SIGINT",
		Long: `Join the two sides and forward until SIGTERM or SIGINT. A line with the word
"ready" goes to stderr once frames flow. SIGHUP, or "fragwall reload", reads the
rules again. SIGUSR1 prints the counters.

--last-good keeps a copy of the configuration in force, with the files that it
names: once frames flow, and after each reload. If FILE is broken at a start, the
copy is used instead. The log, the status and a metric report this until a reload
of FILE succeeds. Only this user may have write access to the directory.

--replace takes over from the instance that runs with the same devices, for example
to upgrade fragwall: its devices, flows, incomplete datagrams and counters. No frame
is lost, and the other instance ends with exit code 0. If the take-over fails, the
other instance continues. If no instance runs with these devices, this one starts as
it does without --replace. With --socket, the other instance is the one that has
this socket.

With a stateful policy, a stop saves the flows in the directory of --state, and the
next start reads them and judges each flow again by the rules. After a kill, or
after the system boots, there are no flows. Only this user may have write access to
the directory.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	options := daemonFlags(c)
	lastGood := c.Flags().String("last-good", "", "`directory` for a copy of the configuration in force, for a start with a broken FILE")
	c.Flags().BoolVar(&options.Replace, "replace", false, "take over from the instance that runs with the same devices")
	state := c.Flags().String("state", "", "`directory` for the flows that a stop saves (default: $STATE_DIRECTORY, or "+runState+")")
	noState := c.Flags().Bool("no-state", false, "do not save flows at a stop, and do not read them at a start")
	c.MarkFlagsMutuallyExclusive("state", "no-state")
	c.Flags().BoolVar(&options.Standby, "standby", false, "take over for as long as the service restarts")
	_ = c.Flags().MarkHidden("standby") // only the standby command sets it
	c.RunE = func(c *cobra.Command, _ []string) error {
		options.State = stateOf(*state)
		options.State.Discard = *noState
		s, err := daemon.Load(c.ErrOrStderr(), *path, *lastGood)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if options.Standby {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, standby.Limit, errNotFollowed)
			defer cancel()
		}
		return newDaemon(c, options, s).Run(ctx, s.Config(), daemon.Configured{Config: s.Config()})
	}
	return c
}

// runState is the default directory in which a box saves its flows.
const runState = "/var/lib/fragwall"

// stateOf returns the directory in which a box saves its flows. directory is the value of
// --state. If it is "", the directory that the service manager names applies (systemd.exec(5),
// StateDirectory=), otherwise the default.
func stateOf(directory string) daemon.State {
	if directory != "" {
		return daemon.State{Directory: directory, Given: true}
	}
	directory, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return daemon.State{Directory: cmp.Or(directory, runState)}
}

// errNotFollowed is the reason for which a standby stops.
var errNotFollowed = fmt.Errorf("no process of the service took over within %s", standby.Limit)

// daemonFlags adds the flags that determine how a running box is controlled, apart from
// signals.
func daemonFlags(c *cobra.Command) *daemon.Options {
	o := &daemon.Options{}
	c.Flags().StringVar(&o.Socket, "socket", "", "`path` of the control socket (default: from the names of the TAPs, in /run/fragwall for root)")
	c.Flags().BoolVar(&o.WatchConfig, "watch-config", false, "reload when the configuration file or the file of a set changes")
	return o
}

// newDaemon returns a daemon that reloads on SIGHUP and prints its counters on SIGUSR1. It
// catches both signals at once, so that neither ends the process while it starts or stops.
func newDaemon(c *cobra.Command, o *daemon.Options, s *daemon.Startup) *daemon.Daemon {
	reload, counters := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	signal.Notify(counters, syscall.SIGUSR1)
	o.Startup, o.Stderr, o.Build, o.Kernel, o.Confine = s, c.ErrOrStderr(), versions(), &box.Linux, confine.Apply
	o.Reload, o.Counters = reload, counters
	return daemon.New(*o)
}
