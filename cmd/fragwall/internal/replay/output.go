package replay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/rules"
	"fragwall/tun/capture"
)

// outputFile is a capture that is written.
type outputFile struct {
	*capture.Writer
	name string
	to   io.Writer
	file *os.File // nil for stdout
	made bool     // whether create created the file
}

// Write writes to the file. Errors name the file.
func (o *outputFile) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		err = fmt.Errorf("write %q: %w", o.name, plain(err))
	}
	return n, err
}

// readFile is a file that no output may be.
type readFile struct {
	what string
	info fs.FileInfo
}

// note collects the files that no output may overwrite: the capture, the configuration, and the
// files that it names.
func (f *files) note(path string, config *rules.Config) {
	if f.in.info != nil {
		f.read = append(f.read, readFile{"the input", f.in.info})
	}
	add := func(what, name string) {
		if info, err := os.Stat(name); err == nil {
			f.read = append(f.read, readFile{what, info})
		}
	}
	add("the configuration", path)
	for _, name := range config.Files {
		add("the file of a set", name)
	}
	if config.Status.TokenFile != "" {
		add("the token file", config.Status.TokenFile)
	}
}

// isRead returns which of the files that are read info is, or "" if it is none of them. The
// file name does not matter.
func (f *files) isRead(info fs.FileInfo) string {
	for _, r := range f.read {
		if sameFile(info, r.info) {
			return r.what
		}
	}
	return ""
}

// sameFile reports whether both are the same file or pipe. A device may be used twice.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && (a.Mode().IsRegular() || a.Mode()&fs.ModeNamedPipe != 0) && os.SameFile(a, b)
}

// infoOf returns information about the file behind a stream, or nil if it is not a file.
func infoOf(stream any) fs.FileInfo {
	if f, ok := stream.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			return info
		}
	}
	return nil
}

// checkStreams fails if stdout or stderr is a file that is read. If stderr is one, the message
// goes to stdout.
func (f *files) checkStreams() error {
	const text = "%s is %s; redirect it elsewhere"
	ofStdout := f.isRead(infoOf(f.stdout))
	ofStderr := f.isRead(infoOf(f.stderr))
	switch {
	case ofStderr != "":
		if ofStdout == "" {
			fmt.Fprintf(f.stdout, "fragwall: "+text+"\n", "stderr", ofStderr)
		}
		return exit.Code(exit.Usage)
	case ofStdout != "":
		return exit.Usagef(text, "stdout", ofStdout)
	}
	return nil
}

// create opens an output. It fails if the output is a file that is read, another output, or the
// file that messages go to. It compares files, not names, because links, mounts and /proc give
// a file several names.
func (f *files) create(name string) (*outputFile, error) {
	if name == StdStream {
		return f.takeStdout("stdout")
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
	if what := f.isRead(info); what != "" {
		return nil, errors.Join(exit.Usagef("output %q is %s; write to another file", name, what), o.discard())
	}
	if f.out != nil && f.out.file != nil && sameFile(info, infoOf(f.out.file)) {
		return nil, errors.Join(exit.Usagef("-o and --dropped are both %q; write to two files", name), o.discard())
	}
	if sameFile(info, infoOf(f.stderr)) {
		return nil, errors.Join(exit.Usagef("output %q is also stderr; write to another file", name), o.discard())
	}
	if sameFile(info, infoOf(f.stdout)) { // such as /dev/stdout
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("close %q: %w", name, plain(err))
		}
		return f.takeStdout(name)
	}
	return o, nil
}

// errStdoutTaken is the error for two outputs on stdout.
var errStdoutTaken = errors.New("only one of -o, --dropped and --json can use stdout")

// takeStdout returns stdout as an output.
func (f *files) takeStdout(name string) (*outputFile, error) {
	if f.stdoutTaken {
		return nil, &exit.UsageError{Err: errStdoutTaken}
	}
	if sameFile(infoOf(f.stdout), infoOf(f.stderr)) {
		return nil, exit.Usagef("stdout gets a capture and stderr is the same file; redirect stderr elsewhere")
	}
	f.stdoutTaken = true
	return &outputFile{name: name, to: f.stdout}, nil
}

// empty truncates an output.
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

// discard closes an output that nothing was written to, and removes the file if create created
// it.
func (o *outputFile) discard() error {
	if o == nil || o.file == nil {
		return nil
	}
	if o.made {
		// The name of the file itself: the output may have been named by a dangling symbolic
		// link.
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", o.file.Fd())); err == nil {
			_ = unix.Unlink(name)
		}
	}
	return o.close()
}
