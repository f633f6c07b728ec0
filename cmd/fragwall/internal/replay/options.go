package replay

import (
	"context"
	"errors"
	"fmt"
	"io"

	"fragwall/packet/verdict"
	"fragwall/rules"
)

// StdStream is the file name that means stdin or stdout.
const StdStream = "-"

// Unmapped means that no interface is mapped to a side.
const Unmapped = -1

// Options are the inputs and outputs of a replay.
type Options struct {
	ConfigFile string
	Input      string
	Output     string
	Dropped    string // "" for none
	JSON       bool
	Offloads   bool   // whether the sender left lengths, checksums and segmentation to its NIC
	From       string // ingress side of all frames; "" if interfaces are mapped
	// Interfaces are the interface numbers in a pcapng, by side; [Unmapped] for none.
	Interfaces [verdict.Sides]int

	Application    string // name of the application in the captures that are written
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// InterfaceFlag returns the name of the flag that maps an interface to a side.
func InterfaceFlag(side verdict.Side) string { return side.String() + "-interface" }

// Check returns an error if the options contradict each other or are incomplete.
func (o *Options) Check() error {
	toStdout := 0
	for _, taken := range []bool{o.Output == StdStream, o.Dropped == StdStream, o.JSON} {
		if taken {
			toStdout++
		}
	}
	mapped := len(o.mappedSides()) > 0
	switch {
	case mapped && o.From != "":
		return errors.New("--from applies to all frames: use either --from or the interface flags")
	case o.bothSides() && o.Interfaces[verdict.Inside] == o.Interfaces[verdict.Outside]:
		return fmt.Errorf("interface %d cannot be on both sides", o.Interfaces[verdict.Inside])
	case o.Output == "":
		return errors.New("no output given; add -o OUT.pcap")
	case toStdout > 1:
		return errStdoutTaken
	case mapped:
		return nil
	}
	switch o.From {
	case verdict.Inside.String(), verdict.Outside.String():
		return nil
	case "":
		return errors.New("the side of the frames is missing: add --from inside or --from outside")
	}
	return fmt.Errorf("--from %q: want inside or outside", o.From)
}

// mapped reports whether interfaces are mapped to sides.
func (o *Options) mapped() bool { return o.From == "" }

// mappedSides returns the sides that have an interface.
func (o *Options) mappedSides() (sides []verdict.Side) {
	for side, number := range o.Interfaces {
		if number != Unmapped {
			sides = append(sides, verdict.Side(side))
		}
	}
	return sides
}

// sides returns the ingress sides: one or both.
func (o *Options) sides() []verdict.Side {
	switch o.From {
	case verdict.Inside.String():
		return []verdict.Side{verdict.Inside}
	case verdict.Outside.String():
		return []verdict.Side{verdict.Outside}
	}
	return o.mappedSides()
}

// bothSides reports whether frames arrive on both sides.
func (o *Options) bothSides() bool { return len(o.mappedSides()) == verdict.Sides }

// Run replays the capture and prints the summary, also if the capture cannot be read to its
// end. The options must have passed [Options.Check].
func Run(ctx context.Context, config *rules.Config, o *Options) (err error) {
	files, err := openFiles(ctx, config, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.close()) }()
	r := newReplay(o, config, files)
	readErr := r.run(newProgress(o.Stderr, files))
	if r.writeErr != nil {
		return r.writeErr
	}
	to := o.Stdout
	if files.stdoutTaken {
		to = o.Stderr
	}
	return errors.Join(r.summary.write(to), readErr)
}
