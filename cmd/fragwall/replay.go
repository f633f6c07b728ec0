package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/packet"
	"fragwall/rules"
)

// stdStream is the name that stands for stdin and stdout.
const stdStream = "-"

// replayFlags are what the command line says.
type replayFlags struct {
	config     string
	input      string
	output     string
	dropped    string // "" for none
	json       bool
	offloads   bool // what is missing in a frame was left to its sender's NIC
	from       string
	interfaces [packet.Sides]int // of a pcapng, by the side that they were on; unmapped for none
	sides      []packet.Side     // that frames come in by: one or both
}

// unmapped is the interface of a side that has none.
const unmapped = -1

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
were made, which is that of time where the capture's does not run backwards, with
"time", "from", "verdict" (accept, drop), "reason" of a drop, "rule" and "line"
of the rule that decided, "vlans", outermost first, "protocol",
"src", "sport", "dst", "dport", "icmp_type", "icmp_code", "fragments" (0 where
it came whole) and "bytes" of all its frames. What does not apply is left out.

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
	f := replayFlags{}
	path := configFlag(c)
	c.Flags().BoolVar(&f.offloads, "offloads", false, "take a checksum or length of 0, and packets longer than the MTU, as left to the sender's NIC")
	c.Flags().StringVar(&f.from, "from", "", "`side` that all frames came in by: inside or outside")
	c.Flags().StringVarP(&f.output, "output", "o", "", "`file` for the frames that leave (required)")
	c.Flags().StringVar(&f.dropped, "dropped", "", "`file` for the frames that don't")
	c.Flags().BoolVar(&f.json, "json", false, "print every decision as a JSON object")
	for side := range packet.Side(packet.Sides) {
		c.Flags().IntVar(&f.interfaces[side], interfaceFlag(side), unmapped,
			fmt.Sprintf("`number` of the interface whose frames came in by the %v", side))
		c.Flags().Lookup(interfaceFlag(side)).DefValue = "0" // which the help leaves out
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		f.config, f.input = *path, args[0]
		if err := f.check(c); err != nil {
			return &usageError{fmt.Errorf("%w; see %q", err, c.CommandPath()+" --help")}
		}
		config, err := loadConfig(c, f.config)
		if err != nil {
			return err
		}
		return f.run(c, config)
	}
	return c
}

func interfaceFlag(side packet.Side) string { return side.String() + "-interface" }

// check finds what is wrong with the command line by itself.
func (f *replayFlags) check(c *cobra.Command) error {
	for side, number := range f.interfaces {
		if !c.Flags().Changed(interfaceFlag(packet.Side(side))) {
			continue
		}
		if number < 0 {
			return fmt.Errorf("--%s %d: interfaces are counted from 0", interfaceFlag(packet.Side(side)), number)
		}
		f.sides = append(f.sides, packet.Side(side))
	}
	toStdout := 0
	for _, taken := range []bool{f.output == stdStream, f.dropped == stdStream, f.json} {
		if taken {
			toStdout++
		}
	}
	switch {
	case len(f.sides) > 0 && f.from != "":
		return errors.New("--from is for all frames: leave it out, or the mapping of interfaces")
	case f.bothSides() && f.interfaces[packet.Inside] == f.interfaces[packet.Outside]:
		return fmt.Errorf("interface %d can't be on both sides", f.interfaces[packet.Inside])
	case f.output == "":
		return errors.New("no output given; add -o OUT.pcap")
	case toStdout > 1:
		return errStdoutTaken
	case len(f.sides) > 0:
		return nil
	}
	switch f.from {
	case packet.Inside.String():
		f.sides = []packet.Side{packet.Inside}
	case packet.Outside.String():
		f.sides = []packet.Side{packet.Outside}
	case "":
		return errors.New("say which side the frames came in by: add --from inside or --from outside")
	default:
		return fmt.Errorf("--from %q: want inside or outside", f.from)
	}
	return nil
}

// mapped reports whether interfaces are mapped to sides.
func (f *replayFlags) mapped() bool { return f.from == "" }

// bothSides reports whether frames come in by both sides.
func (f *replayFlags) bothSides() bool { return len(f.sides) == packet.Sides }

// side returns the side that the frames of an interface came in by.
func (f *replayFlags) side(number int) packet.Side {
	if f.bothSides() && number == f.interfaces[packet.Outside] {
		return packet.Outside
	}
	return f.sides[0]
}

// run replays the capture, and tells what became of it also where it can't be
// read to its end.
func (f *replayFlags) run(c *cobra.Command, config *rules.Config) (err error) {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process, whatever it waits for

	files, err := f.open(ctx, c, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.close()) }()
	r := newReplay(f, config, files)
	readErr := r.run(newProgress(c.ErrOrStderr(), files))
	if r.writeErr != nil {
		return r.writeErr
	}
	summary := c.OutOrStdout()
	if files.stdoutTaken {
		summary = c.ErrOrStderr()
	}
	return errors.Join(r.summary.write(summary), readErr)
}
