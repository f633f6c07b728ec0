package main

import (
	"cmp"
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/replay"
	"fragwall/packet/verdict"
)

const replayHelp = `Run a capture through the same datapath, with the capture's own times as the
clock: all that takes time goes by it. Needs no rights and no devices, and
its output is the same at every run.

IN is a pcap or a pcapng of Ethernet frames, compressed by gzip or not; "-" is
stdin. All its frames came in by the side that --from names. A pcapng may hold
both directions: then --inside-interface and --outside-interface say which of
its interfaces, counted from 0, was on which side, and frames of others are
left out.

OUT holds what would leave the other side, at the times of the capture; "-" is
stdout. It is a pcap, in nanoseconds where IN may have them. With both sides
mapped it is a pcapng with the interfaces "inside" and "outside", and each
frame is on the one it would leave by.

A frame that the machine which captured it had sent itself (epb_flags) is left
out where interfaces are mapped: it came in by none of them.

--offloads is for a capture made on a sender of its frames, which leaves work to
its NIC: an IPv4 header checksum of 0 and an IP length of 0 are filled in, and
TCP and UDP packets longer than the MTU count as the segments that the NIC cuts
them into.

--dropped writes what would not pass: a pcapng in which each frame has the
reason, and the rule, as a comment, at the time it was dropped.

--json prints one object a line for each decision, in the order in which they
were made, which is that of time where the capture's does not run backwards. The
fields are those of "fragwall capture --json" and of events; docs/json.md
documents them.

The summary goes to stdout, or to stderr where stdout is taken.`

func newReplayCommand() *cobra.Command {
	c := &cobra.Command{
		Use: `replay -c FILE --from inside|outside -o OUT.pcap [--dropped FILE] [--json] IN.pcap
  fragwall replay -c FILE --inside-interface N --outside-interface M -o OUT.pcapng IN.pcapng`,
		DisableFlagsInUseLine: true,
		Short:                 "Run a capture through the same datapath",
		Long:                  replayHelp,
		Args:                  usageArgs(cobra.ExactArgs(1)),
	}
	o := replay.Options{Application: "fragwall " + version}
	path := configFlag(c)
	c.Flags().BoolVar(&o.Offloads, "offloads", false, "take a checksum or length of 0, and packets longer than the MTU, as left to the sender's NIC")
	c.Flags().StringVar(&o.From, "from", "", "`side` that all frames came in by: inside or outside")
	c.Flags().StringVarP(&o.Output, "output", "o", "", "`file` for the frames that leave (required)")
	c.Flags().StringVar(&o.Dropped, "dropped", "", "`file` for the frames that don't")
	c.Flags().BoolVar(&o.JSON, "json", false, "print every decision as a JSON object")
	for side := range verdict.Side(verdict.Sides) {
		c.Flags().IntVar(&o.Interfaces[side], replay.InterfaceFlag(side), replay.Unmapped,
			fmt.Sprintf("`number` of the interface whose frames came in by the %v", side))
		c.Flags().Lookup(replay.InterfaceFlag(side)).DefValue = "0" // which the help leaves out
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		o.ConfigFile, o.Input = *path, args[0]
		o.Stdin, o.Stdout, o.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
		if err := cmp.Or(checkInterfaces(c, &o), o.Check()); err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		context.AfterFunc(ctx, stop) // a second signal ends the process, whatever it waits for
		return replay.Run(ctx, config, &o)
	}
	return c
}

// checkInterfaces refuses numbers of interfaces that none can have.
func checkInterfaces(c *cobra.Command, o *replay.Options) error {
	for side, number := range o.Interfaces {
		if name := replay.InterfaceFlag(verdict.Side(side)); c.Flags().Changed(name) && number < 0 {
			return fmt.Errorf("--%s %d: interfaces are counted from 0", name, number)
		}
	}
	return nil
}
