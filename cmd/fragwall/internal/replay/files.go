package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/capture"
)

// files are the inputs and outputs of a replay.
type files struct {
	in          *inputFile
	reader      *capture.Reader
	out         *outputFile
	dropped     *outputFile // nil for none
	stdout      io.Writer
	stderr      io.Writer
	stdoutTaken bool
	read        []readFile // files that no output may be
}

// inputFile is the capture that is read.
type inputFile struct {
	io.Reader
	io.Closer // nil for stdin
	ctx       context.Context
	name      string
	info      fs.FileInfo // nil if it is not a file
	read      int64       // bytes so far
}

// Read reads the capture until the context is done.
func (i *inputFile) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err // a long compressed capture may contain no frames
	}
	n, err := i.Reader.Read(b)
	i.read += int64(n)
	return n, plain(err)
}

// failure returns the error for a capture that was not read to its end.
func (i *inputFile) failure(err error, frames int) error {
	if i.ctx.Err() != nil {
		return fmt.Errorf("read %q: interrupted after %s", i.name, terminal.Count(frames, "frame"))
	}
	return fmt.Errorf("read %q: %w", i.name, err)
}

// size returns the size of the input in bytes, or 0 if it is not a regular file.
func (i *inputFile) size() int64 {
	if i.info == nil || !i.info.Mode().IsRegular() {
		return 0
	}
	return i.info.Size()
}

// plain removes the operation and the path that package os adds to an error. The callers add
// their own.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// openFiles opens the capture and then the outputs. It opens no output if the input is not a
// capture.
func openFiles(ctx context.Context, config *rules.Config, o *Options) (f *files, err error) {
	f = &files{stdout: o.Stdout, stderr: o.Stderr, stdoutTaken: o.JSON}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.discard())
		}
	}()
	if f.in, err = openInput(ctx, o); err != nil {
		return f, err
	}
	f.note(o.ConfigFile, config)
	if err := f.checkStreams(); err != nil {
		return f, err
	}
	var only []int
	for _, number := range o.Interfaces {
		if number != Unmapped {
			only = append(only, number)
		}
	}
	if f.reader, err = capture.NewReader(f.in, only...); err != nil {
		return f, f.in.failure(err, 0)
	}

	if f.out, err = f.create(o.Output); err != nil {
		return f, err
	}
	if o.Dropped != "" {
		if f.dropped, err = f.create(o.Dropped); err != nil {
			return f, err
		}
	}
	return f, f.begin(o.Application, o.bothSides())
}

// begin truncates the outputs and writes their headers.
func (f *files) begin(application string, bothSides bool) (err error) {
	if err := errors.Join(f.out.empty(), f.dropped.empty()); err != nil {
		return err
	}
	sides := []string{verdict.Inside.String(), verdict.Outside.String()}
	if bothSides {
		f.out.Writer, err = capture.NewPcapng(f.out, application, sides...)
	} else {
		f.out.Writer, err = capture.NewPcap(f.out, f.reader.Nanoseconds())
	}
	if err == nil && f.dropped != nil {
		f.dropped.Writer, err = capture.NewPcapng(f.dropped, application, sides...)
	}
	return err
}

func openInput(ctx context.Context, o *Options) (*inputFile, error) {
	in := &inputFile{ctx: ctx, name: o.Input, Reader: o.Stdin}
	if o.Input == StdStream {
		in.name = "stdin"
	} else {
		file, err := os.Open(o.Input)
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", o.Input, plain(err))
		}
		in.Reader, in.Closer = file, file
	}
	if file, ok := in.Reader.(*os.File); ok {
		var err error
		if in.info, err = file.Stat(); err != nil {
			return in, fmt.Errorf("open %q: %w", in.name, plain(err))
		}
		if in.info.IsDir() {
			return in, fmt.Errorf("open %q: is a directory", in.name)
		}
	}
	return in, nil
}

// flush writes buffered output.
func (f *files) flush() error {
	err := f.out.Flush()
	if f.dropped != nil {
		err = errors.Join(err, f.dropped.Flush())
	}
	return err
}

// close closes the files that openFiles opened.
func (f *files) close() error {
	f.closeInput()
	return errors.Join(f.out.close(), f.dropped.close())
}

// discard closes the files that openFiles opened, and removes the outputs that it created.
func (f *files) discard() error {
	f.closeInput()
	return errors.Join(f.out.discard(), f.dropped.discard())
}

func (f *files) closeInput() {
	if f.in != nil && f.in.Closer != nil {
		_ = f.in.Close() // only read, so nothing is lost
	}
}
