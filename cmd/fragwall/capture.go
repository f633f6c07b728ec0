package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/cmd/fragwall/internal/trace"
	"fragwall/tun/capture"
)

const captureHelp = `Show the frames of a running instance as it decides on them: one line each, like
tcpdump -n, with the side that the frame came in by in front, and the verdict,
the reason and the rule in brackets behind it. A fragment also has
"(frag ID:LENGTH@OFFSET)", in bytes, with "+" where it is not the last. The
fragments of a datagram are shown when it is decided on: once it is whole, when
it is given up, or at its deadline.

-w writes a pcapng in place of the lines, with the interfaces "inside" and
"outside" and the verdict, the reason and the rule as a comment of each frame.
"-w -" writes to stdout, for a pipe:

  fragwall capture --dropped -w - | wireshark -k -i -

--json prints one object a line for each decision, with the fields that replay
and events have. docs/json.md documents them.

It ends by Ctrl-C, and says how many frames were captured and how many were
missed. The instance never waits for who looks: what comes faster than it is
taken is missed; what a TAP sheds while the box is behind (fragment_shed) can't be
captured, and is counted as well. Frames are shown as they came in, with what was
left to a NIC (checksums, segments) still to be done.

-c takes a number for the count and anything else for the configuration file
that the instance runs with.`

// captureFlags say what to capture, and where to.
type captureFlags struct {
	instance control.Instance
	request  trace.Request
	count    int
	file     string // "-" for stdout
	json     bool
}

// textSnapLength is how many bytes of each frame are captured for a line of text:
// its headers, and those of a packet in an ICMP error.
const textSnapLength = 256

func newCaptureCommand() *cobra.Command {
	f := &captureFlags{}
	c := &cobra.Command{
		Use:   "capture [FILTER] [--dropped|--forwarded] [--reason R[,R]] [--rule NAME] [-w FILE|-] [-c N] [-s SNAPLEN] [--json]",
		Short: "Show the frames of a running instance as it decides on them",
		Long:  captureHelp,
		Args:  usageArgs(noArguments),
	}
	f.request.Selector = selector.Flags(c)
	flags := c.Flags()
	flags.BoolVar(&f.request.Dropped, "dropped", false, "only frames that do not pass")
	flags.BoolVar(&f.request.Forwarded, "forwarded", false, "only frames that pass")
	flags.StringSliceVar(&f.request.Reasons, "reason", nil, "only frames that do not pass for one of these `reasons`")
	flags.StringVar(&f.request.Rule, "rule", "", "only frames that the rule of this `name` decides on")
	flags.StringVarP(&f.file, "write", "w", "", "write a pcapng to `file`, \"-\" for stdout")
	flags.VarP(&countOrFile{f}, "count", "c", "end after so many frames, or objects with --json alone")
	flags.IntVarP(&f.request.SnapLength, "snaplen", "s", 0, "capture so many `bytes` of each frame; 0: all (lines of text: the headers)")
	flags.BoolVar(&f.json, "json", false, "print every decision as a JSON object")
	flags.StringVar(&f.instance.File, "config", "", "configuration `file` that the instance runs with")
	flags.StringVar(&f.instance.Socket, "socket", "", "control `socket` of the instance")
	c.MarkFlagsMutuallyExclusive("dropped", "forwarded")
	c.MarkFlagsMutuallyExclusive("forwarded", "reason")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := f.check(c.OutOrStdout()); err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		context.AfterFunc(ctx, stop) // a second signal ends the process, whatever it waits for
		return f.run(ctx, c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

// countOrFile is the value of -c: a count, or else the configuration file as with
// other commands.
type countOrFile struct{ flags *captureFlags }

// String returns the count.
func (v *countOrFile) String() string {
	if v.flags == nil || v.flags.count == 0 {
		return ""
	}
	return strconv.Itoa(v.flags.count)
}

// Type is what a usage line shows.
func (*countOrFile) Type() string { return "N" }

// Set sets the count or the file.
func (v *countOrFile) Set(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		v.flags.instance.File = text
	case n < 1:
		return fmt.Errorf("%d is no count; want 1 or more", n)
	default:
		v.flags.count = n
	}
	return nil
}

// check finds what is wrong with the flags, and completes the request.
func (f *captureFlags) check(stdout io.Writer) error {
	r := &f.request
	switch {
	case f.instance.File != "" && f.instance.Socket != "":
		return errors.New("--config and --socket each name the instance: leave one out")
	case f.file == "-" && f.json:
		return errors.New("only one of -w and --json can have stdout")
	case f.file == "-" && terminal.Is(stdout):
		return errors.New("a pcapng is nothing for a terminal: pipe it, as with \"-w - | wireshark -k -i -\"")
	}
	if err := r.Check(); err != nil {
		return err
	}
	r.Records = f.json
	switch {
	case f.json && f.file == "":
		r.SnapLength = 0 // no frames
	case f.file == "":
		r.SnapLength = cmp.Or(r.SnapLength, textSnapLength)
	default:
		r.SnapLength = cmp.Or(r.SnapLength, trace.MaxSnapLength)
	}
	return nil
}

// run captures until ctx is done, or as many frames as wanted are there.
func (f *captureFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	output := &trace.Output{Most: f.count}
	switch lines := bufio.NewWriter(stdout); {
	case f.json:
		output.Records = lines
	case f.file == "":
		output.Text = lines
	}
	decoder := trace.Decoder{Sink: output}
	begun := false
	err = f.instance.Follow(ctx, control.RequestCapture, f.request, func(items []byte) error {
		if !begun { // no file is replaced where there is no instance
			begun = true
			if err := f.open(output, stdout); err != nil {
				return err
			}
			fmt.Fprintln(stderr, f.begin())
		}
		return decoder.Decode(items)
	})
	if !begun {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	err = cmp.Or(f.ended(ctx, err), output.Close()) // what could not be written can't be closed for the same reason
	what := "frames"
	if f.request.SnapLength == 0 {
		what = "decisions"
	}
	if decoder.Shed > 0 {
		fmt.Fprintf(stderr, "%d fragments shed by the TAPs before they could be captured (fragment_shed, whatever FILTER selects)\n", decoder.Shed)
	}
	fmt.Fprintf(stderr, "%d %s captured, %d frames missed\n", output.Captured, what, decoder.Missed)
	return err
}

// begin says that frames are being captured, as tcpdump does.
func (f *captureFlags) begin() string {
	if f.request.SnapLength == 0 {
		return "capturing decisions"
	}
	return fmt.Sprintf("capturing, snapshot length %d bytes", f.request.SnapLength)
}

// ended returns what was wrong with the end of a capture; nil where it ended as the
// user wanted.
func (f *captureFlags) ended(ctx context.Context, err error) error {
	if errors.Is(err, trace.ErrEnough) || ctx.Err() != nil {
		return nil
	}
	return err
}

// open opens the pcapng, if there is to be one.
func (f *captureFlags) open(output *trace.Output, stdout io.Writer) error {
	if f.file == "" {
		return nil
	}
	to := stdout
	if f.file != "-" {
		file, err := os.Create(f.file)
		if err != nil {
			return err
		}
		to, output.File = file, file
	}
	var err error
	output.Capture, err = capture.NewPcapng(to, "fragwall "+version, trace.Interfaces()...)
	return err
}
