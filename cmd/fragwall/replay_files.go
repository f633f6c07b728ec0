package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"fragwall/packet"
	"fragwall/rules"
	"fragwall/tun/capture"
)

// replayFiles are what a replay reads and writes.
type replayFiles struct {
	in          *inputFile
	reader      *capture.Reader
	out         *outputFile
	dropped     *outputFile // nil for none
	stdout      io.Writer
	stdoutTaken bool
	read        []readFile // by name
}

// inputFile is the capture, as far as it was read.
type inputFile struct {
	io.Reader
	io.Closer // nil where it is not ours to close
	ctx       context.Context
	name      string
	info      fs.FileInfo // nil where it is no file
	read      int64       // bytes
}

// Read implements [io.Reader].
func (i *inputFile) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err // a compressed capture may hold a lot without a frame
	}
	n, err := i.Reader.Read(b)
	i.read += int64(n)
	return n, plain(err)
}

// failure says what kept the capture from being read to its end.
func (i *inputFile) failure(err error, frames int) error {
	if i.ctx.Err() != nil {
		return fmt.Errorf("read %q: interrupted after %d frames", i.name, frames)
	}
	return fmt.Errorf("read %q: %w", i.name, err)
}

// size returns how many bytes there are to read; 0 where nobody knows.
func (i *inputFile) size() int64 {
	if i.info == nil || !i.info.Mode().IsRegular() {
		return 0
	}
	return i.info.Size()
}

// plain takes from an error what [os] says of the operation and the path: the
// callers say it their way.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// open opens the capture and, once it is known to be one, the outputs.
func (f *replayFlags) open(ctx context.Context, c *cobra.Command, config *rules.Config) (files *replayFiles, err error) {
	files = &replayFiles{stdout: c.OutOrStdout(), stdoutTaken: f.json}
	defer func() {
		if err != nil {
			err = errors.Join(err, files.discard())
		}
	}()
	if files.in, err = openInput(ctx, c, f.input); err != nil {
		return files, err
	}
	files.note(f.config, config)
	if err := files.checkStreams(c); err != nil {
		return files, err
	}
	var only []int
	for _, number := range f.interfaces {
		if number != unmapped {
			only = append(only, number)
		}
	}
	if files.reader, err = capture.NewReader(files.in, only...); err != nil {
		return files, files.in.failure(err, 0)
	}

	if files.out, err = files.create(f.output); err != nil {
		return files, err
	}
	if f.dropped != "" {
		if files.dropped, err = files.create(f.dropped); err != nil {
			return files, err
		}
	}
	return files, files.begin(f.bothSides())
}

// begin begins the captures that are written.
func (files *replayFiles) begin(bothSides bool) (err error) {
	if err := errors.Join(files.out.empty(), files.dropped.empty()); err != nil {
		return err
	}
	sides := []string{packet.Inside.String(), packet.Outside.String()}
	if bothSides {
		files.out.Writer, err = capture.NewPcapng(files.out, "fragwall "+version, sides...)
	} else {
		files.out.Writer, err = capture.NewPcap(files.out, files.reader.Nanoseconds())
	}
	if err == nil && files.dropped != nil {
		files.dropped.Writer, err = capture.NewPcapng(files.dropped, "fragwall "+version, sides...)
	}
	return err
}

func openInput(ctx context.Context, c *cobra.Command, name string) (*inputFile, error) {
	in := &inputFile{ctx: ctx, name: name, Reader: c.InOrStdin()}
	if name == stdStream {
		in.name = "stdin"
	} else {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", name, plain(err))
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

// flush writes what is still buffered.
func (files *replayFiles) flush() error {
	err := files.out.Flush()
	if files.dropped != nil {
		err = errors.Join(err, files.dropped.Flush())
	}
	return err
}

// close closes what was opened by name.
func (files *replayFiles) close() error {
	files.closeInput()
	return errors.Join(files.out.close(), files.dropped.close())
}

// discard closes what was opened by name where there is nothing to write.
func (files *replayFiles) discard() error {
	files.closeInput()
	return errors.Join(files.out.discard(), files.dropped.discard())
}

func (files *replayFiles) closeInput() {
	if files.in != nil && files.in.Closer != nil {
		_ = files.in.Close() // it was only read
	}
}
