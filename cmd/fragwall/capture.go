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

const captureHelp = `Show the frames of a running instance with its verdicts: one line per frame, like
tcpdump -n, with the ingress side before it, and the verdict, the reason and the
rule in brackets after it. A fragment also has "(frag ID:LENGTH@OFFSET)", in bytes,
with "+" unless it is the last. The fragments of a datagram are shown together
when it is complete, when it is discarded, or at its deadline.

-w writes a pcapng instead of lines, with the interfaces "inside" and "outside",
and the verdict, the reason and the rule as a comment of each frame. "-w -" writes
to stdout, for a pipe:

  fragwall capture --dropped -w - | wireshark -k -i -

--json prints one object per line for each decision, with the fields of
"fragwall replay --json" and of events. docs/json.md documents them.

Ctrl-C ends the capture and prints how many frames were captured and missed. A
capture never delays frames: frames that arrive faster than they are read are
missed. Fragments that a TAP sheds in an overload (fragment_shed) cannot be
captured; their number is printed too. Frames are shown as they arrived: if the
sender left checksums or segmentation to its NIC, they are not done yet.

-c takes a number as the count, and anything else as the configuration file that
the instance runs with.`

// captureFlags are the flags of capture.
type captureFlags struct {
	instance control.Instance
	request  trace.Request
	count    int
	file     string // "-" for stdout
	json     bool
}

// textSnapLength is the number of bytes of each frame that a line of text needs: the headers of
// the packet and, in an ICMP error, those of the quoted packet.
const textSnapLength = 256

func newCaptureCommand() *cobra.Command {
	f := &captureFlags{}
	c := &cobra.Command{
		Use:   "capture [FILTER] [--dropped|--forwarded] [--reason R[,R]] [--rule NAME] [-w FILE|-] [-c N] [-s SNAPLEN] [--json]",
		Short: "Show the frames of a running instance with its verdicts",
		Long:  captureHelp,
		Args:  usageArgs(noArguments),
	}
	f.request.Selector = selector.Flags(c)
	flags := c.Flags()
	flags.BoolVar(&f.request.Dropped, "dropped", false, "only dropped frames")
	flags.BoolVar(&f.request.Forwarded, "forwarded", false, "only forwarded frames")
	flags.StringSliceVar(&f.request.Reasons, "reason", nil, "only frames dropped for one of these `reasons`")
	flags.StringVar(&f.request.Rule, "rule", "", "only frames that the rule with this `name` decides on")
	flags.StringVarP(&f.file, "write", "w", "", "write a pcapng to `file`, \"-\" for stdout")
	flags.VarP(&countOrFile{f}, "count", "c", "end after this many frames, or objects with --json alone")
	flags.IntVarP(&f.request.SnapLength, "snaplen", "s", 0, "capture this many `bytes` of each frame; 0: the whole frame with -w, the headers otherwise")
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
		context.AfterFunc(ctx, stop) // a second signal ends the process at once, by its default action
		return f.run(ctx, c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

// countOrFile is the value of -c: the count if it is a number, otherwise the configuration
// file, as in other commands.
type countOrFile struct{ flags *captureFlags }

// String returns the count.
func (v *countOrFile) String() string {
	if v.flags == nil || v.flags.count == 0 {
		return ""
	}
	return strconv.Itoa(v.flags.count)
}

// Type returns the placeholder for the value in the usage text.
func (*countOrFile) Type() string { return "N" }

// Set sets the count or the file.
func (v *countOrFile) Set(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		v.flags.instance.File = text
	case n < 1:
		return fmt.Errorf("%d is not a count; want 1 or more", n)
	default:
		v.flags.count = n
	}
	return nil
}

// check validates the flags and completes the request.
func (f *captureFlags) check(stdout io.Writer) error {
	r := &f.request
	switch {
	case f.instance.File != "" && f.instance.Socket != "":
		return errors.New("--config and --socket both choose the instance; remove one of them")
	case f.file == "-" && f.json:
		return errors.New("only one of -w and --json can use stdout")
	case f.file == "-" && terminal.Is(stdout):
		return errors.New("a terminal cannot show a pcapng; use a pipe, such as \"-w - | wireshark -k -i -\"")
	}
	if err := r.Check(); err != nil {
		return err
	}
	r.Records = f.json
	switch {
	case f.json && f.file == "":
		r.SnapLength = 0 // no frame data
	case f.file == "":
		r.SnapLength = cmp.Or(r.SnapLength, textSnapLength)
	default:
		r.SnapLength = cmp.Or(r.SnapLength, trace.MaxSnapLength)
	}
	return nil
}

// run captures until ctx is done, or until enough frames are captured.
func (f *captureFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	output := &trace.Output{Most: f.count}
	switch lines := bufio.NewWriter(stdout); {
	case f.json:
		output.Records = lines
	case f.file == "":
		output.Text = lines
	}
	var missed, shed uint64
	begun := false
	for {
		decoder := trace.Decoder{Sink: output}
		err = f.instance.Follow(ctx, control.RequestCapture, f.request, func(items []byte) error {
			if !begun { // the file is created or truncated only once an instance has answered
				begun = true
				if err := f.open(output, stdout); err != nil {
					return err
				}
				fmt.Fprintln(stderr, f.begin())
			}
			return decoder.Decode(items)
		})
		missed, shed = missed+decoder.Missed, shed+decoder.Shed
		if !begun || !errors.Is(err, control.ErrReplaced) {
			break
		}
		fmt.Fprintln(stderr, "another process took over from the instance; the capture continues with it, without the frames in between")
	}
	if !begun {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	err = cmp.Or(f.ended(ctx, err), output.Close()) // a write error appears in both; Close fails for the same reason
	what := "frame"
	if f.request.SnapLength == 0 {
		what = "decision"
	}
	if shed > 0 {
		fmt.Fprintf(stderr, "%s shed by the TAPs and not captured (fragment_shed, regardless of FILTER)\n", terminal.Count(shed, "fragment"))
	}
	fmt.Fprintf(stderr, "%s captured, %s missed\n", terminal.Count(output.Captured, what), terminal.Count(missed, "frame"))
	return err
}

// begin returns the line that is printed when the capture begins, as tcpdump does.
func (f *captureFlags) begin() string {
	if f.request.SnapLength == 0 {
		return "capturing decisions"
	}
	return "capturing, snapshot length " + terminal.Count(f.request.SnapLength, "byte")
}

// ended returns the error of a capture that has ended, or nil if it ended by the count or by a
// signal.
func (f *captureFlags) ended(ctx context.Context, err error) error {
	if errors.Is(err, trace.ErrEnough) || ctx.Err() != nil {
		return nil
	}
	return err
}

// open opens the pcapng if one was requested.
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
