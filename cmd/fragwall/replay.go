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

const replayHelp = `Run a capture through the datapath of "fragwall run", with the timestamps of the
capture as the clock. Needs no rights and no devices. Its output is the same at
every run.

IN is a pcap or pcapng of Ethernet frames, optionally compressed by gzip; "-" is
stdin. --from names the side that all frames arrive on. A pcapng may hold both
directions: --inside-interface and --outside-interface map its interfaces, counted
from 0, to the sides, and frames of other interfaces are skipped.

OUT gets the frames that would leave, at the times of the capture; "-" is stdout.
It is a pcap, with nanoseconds if IN may have them. With both sides mapped it is a
pcapng with the interfaces "inside" and "outside", and each frame is on the
interface that it would leave by.

With mapped interfaces, frames marked as outbound (epb_flags) are skipped: the
capturing machine sent them.

--offloads is for a capture on the sender, which leaves work to its NIC: an IPv4
header checksum of 0 and an IP length of 0 are filled in, and TCP and UDP packets
longer than the MTU count as the segments that the NIC makes of them.

--dropped writes the frames that would be dropped to a pcapng. Each frame has the
time of the drop, and the reason and the rule as a comment.

--json prints one object per line for each decision, in order. The fields are those
of "fragwall capture --json" and of events; docs/json.md documents them.

The summary goes to stdout, or to stderr if stdout is in use.`

func newReplayCommand() *cobra.Command {
	c := &cobra.Command{
		Use: `replay -c FILE --from inside|outside -o OUT.pcap [--dropped FILE] [--json] IN.pcap
  fragwall replay -c FILE --inside-interface N --outside-interface M -o OUT.pcapng IN.pcapng`,
		DisableFlagsInUseLine: true,
		Short:                 "Run a capture through the datapath",
		Long:                  replayHelp,
		Args:                  usageArgs(cobra.ExactArgs(1)),
	}
	o := replay.Options{Application: "fragwall " + version}
	path := configFlag(c)
	c.Flags().BoolVar(&o.Offloads, "offloads", false, "treat a checksum or length of 0, and packets longer than the MTU, as left to the sender's NIC")
	c.Flags().StringVar(&o.From, "from", "", "`side` that all frames arrive on: inside or outside")
	c.Flags().StringVarP(&o.Output, "output", "o", "", "`file` for the frames that leave (required)")
	c.Flags().StringVar(&o.Dropped, "dropped", "", "`file` for the dropped frames")
	c.Flags().BoolVar(&o.JSON, "json", false, "print every decision as a JSON object")
	for side := range verdict.Side(verdict.Sides) {
		c.Flags().IntVar(&o.Interfaces[side], replay.InterfaceFlag(side), replay.Unmapped,
			fmt.Sprintf("`number` of the interface on the %v", side))
		c.Flags().Lookup(replay.InterfaceFlag(side)).DefValue = "0" // omit the default in the help text
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
		context.AfterFunc(ctx, stop) // a second signal ends the process at once, by its default action
		return replay.Run(ctx, config, &o)
	}
	return c
}

// checkInterfaces rejects negative interface numbers.
func checkInterfaces(c *cobra.Command, o *replay.Options) error {
	for side, number := range o.Interfaces {
		if name := replay.InterfaceFlag(verdict.Side(side)); c.Flags().Changed(name) && number < 0 {
			return fmt.Errorf("--%s %d: interfaces are counted from 0", name, number)
		}
	}
	return nil
}
