package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fragwall/rules"
	"fragwall/tun/capture"
)

// outputFile is a capture that is written.
type outputFile struct {
	*capture.Writer
	name string
	to   io.Writer
	file *os.File // nil where it is not ours to close
	made bool     // it was not there before
}

// Write implements [io.Writer].
func (o *outputFile) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		err = fmt.Errorf("write %q: %w", o.name, plain(err))
	}
	return n, err
}

// readFile is a file that is read, which nothing may be written to.
type readFile struct {
	what string
	info fs.FileInfo
}

// note takes note of all files that are read: the capture, the configuration and
// the files of its sets.
func (files *replayFiles) note(path string, config *rules.Config) {
	if files.in.info != nil {
		files.read = append(files.read, readFile{"the input", files.in.info})
	}
	add := func(what, name string) {
		if info, err := os.Stat(name); err == nil {
			files.read = append(files.read, readFile{what, info})
		}
	}
	add("the configuration", path)
	for _, name := range config.Files {
		add("the file of a set", name)
	}
}

// isRead returns which of the files that are read a file is, whatever the name
// it was opened by; "" for none.
func (files *replayFiles) isRead(info fs.FileInfo) string {
	for _, r := range files.read {
		if sameFile(info, r.info) {
			return r.what
		}
	}
	return ""
}

// sameFile reports whether two are one file or pipe. Devices may be used twice.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && (a.Mode().IsRegular() || a.Mode()&fs.ModeNamedPipe != 0) && os.SameFile(a, b)
}

// infoOf returns what is known of the file behind a stream; nil where there is
// none.
func infoOf(stream any) fs.FileInfo {
	if f, ok := stream.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			return info
		}
	}
	return nil
}

// checkStreams refuses to print into a file that is read. Where that is stderr,
// it says so on stdout.
func (files *replayFiles) checkStreams(c *cobra.Command) error {
	const text = "%s is %s; redirect it elsewhere"
	ofStdout := files.isRead(infoOf(files.stdout))
	ofStderr := files.isRead(infoOf(c.ErrOrStderr()))
	switch {
	case ofStderr != "":
		if ofStdout == "" {
			fmt.Fprintf(files.stdout, "fragwall: "+text+"\n", "stderr", ofStderr)
		}
		return &reportedError{exitUsage}
	case ofStdout != "":
		return &usageError{fmt.Errorf(text, "stdout", ofStdout)}
	}
	return nil
}

// create opens an output, and makes sure that it is none of the files that are
// read, and no other output. The name does not tell: links, mounts and /proc lead
// to a file by many.
func (files *replayFiles) create(name string) (*outputFile, error) {
	if name == stdStream {
		return files.takeStdout("stdout")
	}
	_, missing := os.Stat(name)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", name, plain(err))
	}
	o := &outputFile{name: name, to: file, file: file, made: errors.Is(missing, fs.ErrNotExist)}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %q: %w", name, plain(err)), o.discard())
	}
	if what := files.isRead(info); what != "" {
		return nil, errors.Join(&usageError{fmt.Errorf("output %q is %s; write to another file", name, what)}, o.discard())
	}
	if files.out != nil && files.out.file != nil && sameFile(info, infoOf(files.out.file)) {
		return nil, errors.Join(&usageError{fmt.Errorf("-o and --dropped are both %q; write to two files", name)}, o.discard())
	}
	if sameFile(info, infoOf(files.stdout)) { // as /dev/stdout is
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("close %q: %w", name, plain(err))
		}
		return files.takeStdout(name)
	}
	return o, nil
}

// errStdoutTaken is what two outputs for stdout are.
var errStdoutTaken = errors.New("only one of -o, --dropped and --json can have stdout")

// takeStdout returns stdout as an output.
func (files *replayFiles) takeStdout(name string) (*outputFile, error) {
	if files.stdoutTaken {
		return nil, &usageError{errStdoutTaken}
	}
	files.stdoutTaken = true
	return &outputFile{name: name, to: files.stdout}, nil
}

// empty takes out of an output what was in it.
func (o *outputFile) empty() error {
	if o == nil || o.file == nil {
		return nil
	}
	info, err := o.file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = o.file.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("create %q: %w", o.name, plain(err))
	}
	return nil
}

// close closes the output.
func (o *outputFile) close() error {
	if o == nil || o.file == nil {
		return nil
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("close %q: %w", o.name, plain(err))
	}
	return nil
}

// discard closes an output that nothing was written to, and removes the file that
// was made for it.
func (o *outputFile) discard() error {
	if o == nil || o.file == nil {
		return nil
	}
	if o.made {
		// By its own name, where the output was given by a link that dangled.
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", o.file.Fd())); err == nil {
			_ = unix.Unlink(name)
		}
	}
	return o.close()
}
