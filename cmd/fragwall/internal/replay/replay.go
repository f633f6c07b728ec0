package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"

	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/cmd/fragwall/internal/record"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/capture"
	"fragwall/wire"
)

// replay is one run of a capture through the wire. It belongs to one goroutine, on which the
// wire also calls it back.
type replay struct {
	options  *Options
	files    *files
	sides    []verdict.Side // ingress sides: one or both
	both     bool           // frames arrive on both sides
	stepper  *wire.Stepper
	verdicts *verdictWriter // nil if verdicts are not requested
	summary  *summary

	mtus     [verdict.Sides]int // by ingress side
	copies   *copies            // nil if frames arrive on one side only
	length   int                // length of the current frame on the wire
	writeErr error              // first error of any output
}

func newReplay(o *Options, config *rules.Config, f *files) *replay {
	r := &replay{options: o, files: f, sides: o.sides(), both: o.bothSides()}
	c := datapath.Config(config)
	for side := range verdict.Side(verdict.Sides) {
		r.mtus[side] = c.Sides[side].MTU
		c.Sides[side].Lanes = []tun.Lane{&lane{replay: r, to: side.Other()}}
	}
	c.Observer = r
	r.stepper = wire.NewStepper(c)
	r.summary = newSummary(f.in.name, r.sides, config, r.stepper)
	r.summary.mapped = o.mapped()
	if r.both {
		r.copies = newCopies()
	}
	if o.JSON {
		r.verdicts = newVerdictWriter(f.stdout)
	}
	return r
}

// progressEvery is the number of frames between two checks of the context and updates of the
// progress.
const progressEvery = 1024

// run replays the capture to its end or to the first error. It returns the error of the input.
// The first error of an output is in writeErr.
func (r *replay) run(progress *progress) error {
	err := r.read(progress)
	progress.end()
	r.stepper.Close()
	r.keep(r.files.flush())
	if r.verdicts != nil {
		r.keep(r.verdicts.Flush())
	}
	r.summary.skipped = r.files.reader.Skipped()
	return err
}

func (r *replay) read(progress *progress) error {
	reader := r.files.reader
	for n := 0; r.writeErr == nil; n++ {
		if n%progressEvery == 0 {
			if err := r.files.in.ctx.Err(); err != nil {
				return r.files.in.failure(err, n)
			}
			progress.update(n)
		}
		f, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return r.checkMapping()
		case err != nil:
			return r.files.in.failure(err, n)
		}
		r.take(f)
	}
	return nil
}

func (r *replay) take(f capture.Frame) {
	r.summary.directions[f.Direction]++
	if r.options.mapped() && f.Direction == capture.Outbound {
		return // the frame left the capturing host
	}
	r.summary.arrive(f)
	r.length = f.Length
	from, frame := r.side(f.Interface), tun.Frame{Data: f.Data}
	if r.copies != nil && r.copies.isCopy(f, from) {
		r.summary.copies++
	}
	if f.Length > len(f.Data) {
		r.stepper.Drop(from, frame, f.Time, verdict.SnapLength)
		return
	}
	if r.options.Offloads {
		frame = complete(f.Data, r.mtus[from])
	}
	r.stepper.Forward(from, frame, f.Time)
}

// side returns the ingress side of an interface's frames.
func (r *replay) side(number int) verdict.Side {
	if r.both && number == r.options.Interfaces[verdict.Outside] {
		return verdict.Outside
	}
	return r.sides[0]
}

// checkMapping returns an error if the capture lacks a mapped interface.
func (r *replay) checkMapping() error {
	for side, number := range r.options.Interfaces {
		if n := r.files.reader.Interfaces(); number >= n {
			return fmt.Errorf("read %q: --%s %d: the capture has %s, counted from 0",
				r.files.in.name, InterfaceFlag(verdict.Side(side)), number, terminal.Count(n, "interface"))
		}
	}
	return nil
}

// keep keeps the first error of an output.
func (r *replay) keep(err error) {
	if r.writeErr == nil {
		r.writeErr = err
	}
}

// Wants implements [wire.Observer]. It asks for every decision.
func (r *replay) Wants(*filter.Table, filter.Verdict, *packet.Parsed) wire.Reporter { return r }

// Decided implements [wire.Reporter]. It counts the decision, and writes it if that was
// requested.
func (r *replay) Decided(d *wire.Decision) {
	at := r.stepper.At()
	r.summary.decide(d)
	switch d.Verdict.Reason {
	case verdict.IPv4Checksum, verdict.IPv4Length, verdict.ExceedsMTU:
		if !r.options.Offloads && leftToNIC(d.Frame(0)) {
			r.summary.leftToNIC++
		}
	}
	if r.verdicts != nil {
		r.keep(r.verdicts.write(at, d))
	}
	if d.Verdict.Action == verdict.Accept || r.files.dropped == nil {
		return
	}
	about := record.Of(d, at)
	comment := about.Why()
	for i := range d.Frames() {
		f := capture.Frame{Data: d.Frame(i), Length: len(d.Frame(i)), Time: at, Interface: int(d.From)}
		if d.Verdict.Reason == verdict.SnapLength {
			f.Length = r.length
		}
		r.keep(r.files.dropped.Writer.Write(f, comment))
	}
}

var _ wire.Observer = (*replay)(nil)
var _ tun.Lane = (*lane)(nil)

// lane receives the frames that leave on a side.
type lane struct {
	*replay
	to verdict.Side
}

// Name implements [tun.Lane].
func (l *lane) Name() string { return "to " + l.to.String() }

// Read implements [tun.Lane]. The stepper does not read: its frames come from the capture.
func (l *lane) Read() ([]tun.Frame, error) { return nil, tun.ErrClosed }

// Behind implements [tun.Lane]. It is always false: a replay has no time limit.
func (*lane) Behind() bool { return false }

func (*lane) Shed() uint64 { return 0 }

func (*lane) Credit(netip.Addr) {}

// Reply implements [tun.Lane]. It sends nothing: a replay only drops rejected datagrams.
func (l *lane) Reply(tun.Frame) error { return nil }

// Hold implements [tun.Lane].
func (l *lane) Hold() error { return nil }

// Close implements [tun.Lane].
func (l *lane) Close() error { return nil }

// Write implements [tun.Lane]. It writes forwarded frames to the output.
func (l *lane) Write(frames []tun.Frame) (refused int, err error) {
	for _, f := range frames {
		left := capture.Frame{Data: f.Data, Length: len(f.Data), Time: l.stepper.At()}
		if l.both {
			left.Interface = int(l.to)
		} else if left.Time.Unix() > math.MaxUint32 {
			l.summary.wrapped++
		}
		if err := l.files.out.Writer.Write(left); err != nil {
			l.keep(err)
			return len(frames), err
		}
	}
	return 0, nil
}

// verdictWriter writes decisions as JSON, one per line.
type verdictWriter struct {
	*bufio.Writer
	encoder *record.Encoder
	record  record.Decision // a field, to avoid an allocation per decision
}

func newVerdictWriter(w io.Writer) *verdictWriter {
	return &verdictWriter{Writer: bufio.NewWriterSize(w, 64<<10), encoder: record.NewEncoder()}
}

func (w *verdictWriter) write(at time.Time, d *wire.Decision) error {
	w.record = record.Of(d, at)
	_, err := w.Write(append(w.encoder.Encode(&w.record), '\n'))
	return err
}
