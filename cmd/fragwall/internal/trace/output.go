package trace

import (
	"errors"
	"io"

	"fragwall/cmd/fragwall/internal/frametext"
	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// ErrEnough reports that an [Output] has reached its limit.
var ErrEnough = errors.New("captured as many as requested")

// Output writes captured frames in one or more formats.
type Output struct {
	Text    io.Writer       // one line per frame; nil for none
	Records io.Writer       // one JSON object per line and decision; nil for none
	Capture *capture.Writer // its interfaces are the sides, and its comments the verdicts; nil for none
	File    io.Closer       // closed with the output; nil for none
	// Most is the number of frames after which the output ends, or of decisions if no format
	// has frames; 0 means no limit.
	Most     int
	Captured int // number of frames or decisions so far

	last   Decision
	line   []byte
	padded []byte // a frame with zeros for the bytes that were not captured
}

var _ Sink = (*Output)(nil)

// Interfaces returns the interface names of Capture, by side.
func Interfaces() []string { return []string{verdict.Inside.String(), verdict.Outside.String()} }

// Decision implements [Sink]. It writes the record.
func (o *Output) Decision(d *Decision) error {
	o.last = *d
	if o.Records == nil {
		return nil
	}
	if _, err := o.Records.Write(append(append(o.line[:0], d.Record...), '\n')); err != nil {
		return err
	}
	if o.Text == nil && o.Capture == nil {
		return o.count()
	}
	return nil
}

// count counts one frame or decision, and returns ErrEnough at the limit.
func (o *Output) count() error {
	if o.Captured++; o.Captured == o.Most {
		return ErrEnough
	}
	return nil
}

// Frame implements [Sink]. It writes the frame.
func (o *Output) Frame(f *Frame) error {
	if o.Capture != nil {
		err := o.Capture.Write(capture.Frame{Data: f.Data, Length: f.Length, Time: o.last.Time, Interface: int(o.last.From)}, o.last.Comment)
		if err != nil {
			return err
		}
	}
	if o.Text != nil {
		if err := o.writeText(f); err != nil {
			return err
		}
	}
	return o.count()
}

// textTime is the time format of tcpdump.
const textTime = "15:04:05.000000"

// writeText writes one line for a frame.
func (o *Output) writeText(f *Frame) error {
	frame := f.Data
	if f.Length > len(frame) { // the headers give the full length
		o.padded = append(append(o.padded[:0], frame...), make([]byte, f.Length-len(frame))...)
		frame = o.padded
	}
	b := o.last.Time.Local().AppendFormat(o.line[:0], textTime)
	b = append(append(append(b, ' '), o.last.From.String()...), ' ')
	b = frametext.AppendFragment(frametext.Append(b, frame), frame)
	b = append(append(append(b, " ["...), o.last.Comment...), "]\n"...)
	o.line = b
	_, err := o.Text.Write(b)
	return err
}

// Flush writes buffered output.
func (o *Output) Flush() error {
	var errs []error
	for _, w := range []io.Writer{o.Text, o.Records} {
		if buffered, ok := w.(interface{ Flush() error }); ok {
			errs = append(errs, buffered.Flush())
		}
	}
	if o.Capture != nil {
		errs = append(errs, o.Capture.Flush())
	}
	return errors.Join(errs...)
}

// Close writes buffered output and closes the file.
func (o *Output) Close() error {
	err := o.Flush()
	if o.File != nil {
		err = errors.Join(err, o.File.Close())
	}
	return err
}
