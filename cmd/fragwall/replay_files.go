package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fragwall/packet"
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
}

// inputFile is the capture, as far as it was read.
type inputFile struct {
	io.Reader
	io.Closer // nil where it is not ours to close
	name      string
	info      fs.FileInfo // nil where it is no file
	read      int64       // bytes
}

// Read implements [io.Reader].
func (i *inputFile) Read(b []byte) (int, error) {
	n, err := i.Reader.Read(b)
	i.read += int64(n)
	return n, plain(err)
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

// outputFile is a capture that is written.
type outputFile struct {
	*capture.Writer
	name   string
	file   io.Writer
	closer io.Closer // nil where it is not ours to close
}

// Write implements [io.Writer].
func (o *outputFile) Write(b []byte) (int, error) {
	n, err := o.file.Write(b)
	if err != nil {
		err = fmt.Errorf("write %q: %w", o.name, plain(err))
	}
	return n, err
}

// open opens the capture and, once it is known to be one, the outputs.
func (f *replayFlags) open(c *cobra.Command) (files *replayFiles, err error) {
	files = &replayFiles{stdout: c.OutOrStdout(), stdoutTaken: f.json}
	defer func() {
		if err != nil {
			err = errors.Join(err, files.close())
		}
	}()
	if files.in, err = openInput(c, f.input); err != nil {
		return files, err
	}
	if err := f.checkOutputs(files); err != nil {
		return files, &usageError{err}
	}
	var only []int
	for _, number := range f.interfaces {
		if number != unmapped {
			only = append(only, number)
		}
	}
	if files.reader, err = capture.NewReader(files.in, only...); err != nil {
		return files, fmt.Errorf("read %q: %w", files.in.name, err)
	}

	if files.out, err = files.create(f.output); err != nil {
		return files, err
	}
	sides := []string{packet.Inside.String(), packet.Outside.String()}
	if f.bothSides() {
		files.out.Writer, err = capture.NewPcapng(files.out, "fragwall "+version, sides...)
	} else {
		files.out.Writer, err = capture.NewPcap(files.out, files.reader.Nanoseconds())
	}
	if err != nil || f.dropped == "" {
		return files, err
	}
	if files.dropped, err = files.create(f.dropped); err != nil {
		return files, err
	}
	files.dropped.Writer, err = capture.NewPcapng(files.dropped, "fragwall "+version, sides...)
	return files, err
}

func openInput(c *cobra.Command, name string) (*inputFile, error) {
	in := &inputFile{name: name, Reader: c.InOrStdin()}
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

// checkOutputs refuses to write over what is read, or two outputs into one.
func (f *replayFlags) checkOutputs(files *replayFiles) error {
	config, _ := os.Stat(f.config)
	outputs := map[string]fs.FileInfo{}
	for _, name := range []string{f.output, f.dropped} {
		if name == "" {
			continue
		}
		var info fs.FileInfo
		if file, ok := files.stdout.(*os.File); ok && name == stdStream {
			info, _ = file.Stat()
		} else if name != stdStream {
			info, _ = os.Stat(name)
		}
		switch {
		case sameFile(info, files.in.info):
			return fmt.Errorf("output %q is the input; write to another file", name)
		case sameFile(info, config):
			return fmt.Errorf("output %q is the configuration; write to another file", name)
		}
		outputs[name] = info
	}
	one, other := f.output, f.dropped
	if sameFile(outputs[one], outputs[other]) || other != "" && other != stdStream && outputs[other] == nil && samePath(one, other) {
		return fmt.Errorf("-o and --dropped are both %q; write to two files", other)
	}
	return nil
}

// sameFile reports whether two are one file, which devices may be.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && a.Mode().IsRegular() && os.SameFile(a, b)
}

func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

func (files *replayFiles) create(name string) (*outputFile, error) {
	if name == stdStream {
		files.stdoutTaken = true
		return &outputFile{name: "stdout", file: files.stdout}, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", name, plain(err))
	}
	return &outputFile{name: name, file: file, closer: file}, nil
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
	var errs []error
	if files.in != nil && files.in.Closer != nil {
		_ = files.in.Close() // it was only read
	}
	for _, o := range []*outputFile{files.out, files.dropped} {
		if o == nil || o.closer == nil {
			continue
		}
		if err := o.closer.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %q: %w", o.name, plain(err)))
		}
	}
	return errors.Join(errs...)
}
