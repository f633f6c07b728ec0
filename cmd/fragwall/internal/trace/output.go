package trace

import (
	"errors"
	"io"

	"fragwall/cmd/fragwall/internal/frametext"
	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// ErrEnough is the end of an [Output] that has got as much as was asked for.
var ErrEnough = errors.New("captured as many as requested")

// Output writes what is captured, in one or more forms.
type Output struct {
	Text    io.Writer       // a line for each frame; nil for none
	Records io.Writer       // JSON, a line for each decision; nil for none
	Capture *capture.Writer // of interfaces by side, with comments; nil for none
	File    io.Closer       // that is closed with the output; nil for none
	// Most is after how many frames, or decisions where frames are in no form,
	// it ends; 0 for no end.
	Most     int
	Captured int // of these

	last   Decision
	line   []byte
	padded []byte // a frame with zeros in place of what was not captured
}

var _ Sink = (*Output)(nil)

// Interfaces are the names of the interfaces of Capture.
func Interfaces() []string { return []string{verdict.Inside.String(), verdict.Outside.String()} }

// Decision writes the record.
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

// count counts one, and ends the output with the last.
func (o *Output) count() error {
	if o.Captured++; o.Captured == o.Most {
		return ErrEnough
	}
	return nil
}

// Frame writes the frame.
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

// textTime is the time of a frame, as tcpdump has it.
const textTime = "15:04:05.000000"

// writeText writes a line about a frame.
func (o *Output) writeText(f *Frame) error {
	frame := f.Data
	if f.Length > len(frame) { // so that it is as long as its headers say
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

// Flush writes what is buffered.
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

// Close writes what is buffered, and closes the file.
func (o *Output) Close() error {
	err := o.Flush()
	if o.File != nil {
		err = errors.Join(err, o.File.Close())
	}
	return err
}
