package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/capture"
	"fragwall/wire"
)

// replay is one run of a capture through the wire. It belongs to one
// goroutine, which the wire calls back.
type replay struct {
	flags    *replayFlags
	files    *replayFiles
	stepper  *wire.Stepper
	verdicts *verdictWriter // nil where nobody wants them
	summary  *replaySummary

	mtus     [packet.Sides]int // by the side that frames come in by
	copies   *copies           // nil where frames come in by one side
	length   int               // of the current frame on the wire
	writeErr error             // the first of any output
}

func newReplay(f *replayFlags, config *rules.Config, files *replayFiles) *replay {
	r := &replay{flags: f, files: files}
	c := wireConfig(config)
	for side := range packet.Side(packet.Sides) {
		r.mtus[side] = c.Ends[side].MTU
		c.Ends[side].Lanes = []tun.Lane{&replayLane{replay: r, to: side.Other()}}
	}
	c.Observer = r
	r.stepper = wire.NewStepper(c)
	r.summary = newReplaySummary(files.in.name, f.sides, config, r.stepper)
	r.summary.mapped = f.mapped()
	if f.bothSides() {
		r.copies = newCopies()
	}
	if f.json {
		r.verdicts = &verdictWriter{Writer: bufio.NewWriterSize(files.stdout, 64<<10)}
	}
	return r
}

// progressEvery is how many frames go by between looks at the context and the
// terminal.
const progressEvery = 1024

// run replays the capture to its end, or to the first error, which is the
// input's.
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
	if r.flags.mapped() && f.Direction == capture.Outbound {
		return // it did not come in, it left
	}
	r.summary.arrive(f)
	r.length = f.Length
	from, frame := r.flags.side(f.Interface), tun.Frame{Data: f.Data}
	if r.copies != nil && r.copies.isCopy(f, from) {
		r.summary.copies++
	}
	if f.Length > len(f.Data) {
		r.stepper.Drop(from, frame, f.Time, packet.SnapLength)
		return
	}
	if r.flags.offloads {
		frame = complete(f.Data, r.mtus[from])
	}
	r.stepper.Forward(from, frame, f.Time)
}

// checkMapping finds interfaces that the capture turned out not to have.
func (r *replay) checkMapping() error {
	for side, number := range r.flags.interfaces {
		if n := r.files.reader.Interfaces(); number >= n {
			return fmt.Errorf("read %q: --%s %d: the capture has %d interfaces, counted from 0",
				r.files.in.name, interfaceFlag(packet.Side(side)), number, n)
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

// Wants implements [wire.Observer].
func (r *replay) Wants(filter.Verdict, *packet.Parsed) bool { return true }

// Decided implements [wire.Observer].
func (r *replay) Decided(d *wire.Decision) {
	at := r.stepper.At()
	r.summary.decide(d)
	switch d.Verdict.Reason {
	case packet.IPv4Checksum, packet.IPv4Length, packet.ExceedsMTU:
		if !r.flags.offloads && leftToNIC(d.Frame(0)) {
			r.summary.leftToNIC++
		}
	}
	if r.verdicts != nil {
		r.keep(r.verdicts.write(at, d))
	}
	if d.Verdict.Action == filter.Accept || r.files.dropped == nil {
		return
	}
	comment := dropComment(d.Verdict)
	for i := range d.Frames() {
		f := capture.Frame{Data: d.Frame(i), Length: len(d.Frame(i)), Time: at, Interface: int(d.From)}
		if d.Verdict.Reason == packet.SnapLength {
			f.Length = r.length
		}
		r.keep(r.files.dropped.Writer.Write(f, comment))
	}
}

// dropComment says why a frame did not pass.
func dropComment(v filter.Verdict) string {
	if v.Rule == nil {
		return v.Reason.String()
	}
	return fmt.Sprintf("%v: rule %q, line %d", v.Reason, v.Rule.Name, v.Rule.Line)
}

// replayLane takes what leaves by a side.
type replayLane struct {
	*replay
	to packet.Side
}

// Name implements [tun.Lane].
func (l *replayLane) Name() string { return "to " + l.to.String() }

// Read implements [tun.Lane]: the stepper has its frames from the capture.
func (l *replayLane) Read() ([]tun.Frame, error) { return nil, tun.ErrClosed }

// Behind implements [tun.Lane]: a capture waits as long as it takes.
func (*replayLane) Behind() bool { return false }

// Reply implements [tun.Lane]: in a replay, to reject is to drop.
func (l *replayLane) Reply(tun.Frame) error { return nil }

// Close implements [tun.Lane].
func (l *replayLane) Close() error { return nil }

// Write implements [tun.Lane].
func (l *replayLane) Write(frames []tun.Frame) (refused int, err error) {
	for _, f := range frames {
		left := capture.Frame{Data: f.Data, Length: len(f.Data), Time: l.stepper.At()}
		if l.flags.bothSides() {
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

// verdictWriter writes decisions as JSON, one a line.
type verdictWriter struct {
	*bufio.Writer
	line []byte
}

func (w *verdictWriter) write(at time.Time, d *wire.Decision) error {
	w.line = appendVerdict(w.line[:0], at, d)
	_, err := w.Write(w.line)
	return err
}
