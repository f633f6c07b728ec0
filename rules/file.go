package rules

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readTimeout is the time limit for reading a file, for instance from a file server that
// does not answer.
const readTimeout = 10 * time.Second

// reads limits the number of reads that never end. Each holds a thread.
var reads = make(chan struct{}, 16)

// Reader returns the text of a file, with a limit on its bytes and on the time.
type Reader func(name string, most int64, within time.Duration) (string, error)

// ReadWithin is a [Reader] of regular files. It refuses files that have no end or never
// begin: devices, pipes, and files that the kernel generates, such as those in /proc. The
// error names the file and wraps the system's error.
func ReadWithin(name string, most int64, timeout time.Duration) (string, error) {
	late := time.After(timeout)
	tooLate := fmt.Errorf("%s could not be read within %s", quote(name), timeout.Round(time.Millisecond))
	select {
	case reads <- struct{}{}:
	case <-late:
		return "", tooLate
	}
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-reads }()
		text, err := readRegular(name, most)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-late:
		return "", tooLate
	}
}

// readRegular returns the text of a regular file, with a limit on its bytes.
func readRegular(name string, most int64) (string, error) {
	// Opening a device can have an effect, and opening a pipe can block.
	if info, err := os.Stat(name); err != nil {
		return "", unreadable(name, err)
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is %s; want a regular file", quote(name), typeOf(info.Mode()))
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", unreadable(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", unreadable(name, err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is %s; want a regular file", quote(name), typeOf(info.Mode()))
	case madeUp(f):
		return "", fmt.Errorf("%s is a file that the kernel generates; want a regular file", quote(name))
	case info.Size() > most:
		return "", &sizeError{name, most}
	}
	var text strings.Builder
	text.Grow(int(info.Size()))
	if _, err := io.Copy(&text, io.LimitReader(f, most+1)); err != nil {
		return "", unreadable(name, err)
	}
	if int64(text.Len()) > most { // it grows
		return "", &sizeError{name, most}
	}
	return text.String(), nil
}

// sizeError returns the error for a file that is too large.
type sizeError struct {
	name string
	most int64
}

func (e *sizeError) Error() string {
	return fmt.Sprintf("%s has more than %d bytes; want at most that many", quote(e.name), e.most)
}

// madeUp reports whether a file belongs to a pseudo file system of the kernel. Such files
// claim to be regular and may have no end.
func madeUp(f *os.File) bool {
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil {
		return false
	}
	switch int64(s.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC:
		return true
	}
	return false
}

// typeOf returns the name of a file type that is not regular.
func typeOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// unreadable returns the reason why a file cannot be read, with its name once.
func unreadable(name string, err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s: %w", quote(name), err)
}

// reading is what may still be read from the files of a configuration, all together.
type reading struct {
	by    Reader
	time  time.Duration // for reading; parsing does not count
	files int
	bytes int64
}

// newReading returns the limits for the files of one configuration.
func newReading(by Reader) reading {
	return reading{by: by, time: readTimeout, files: maxSetFiles, bytes: maxSetBytes}
}

// read returns the text of the next file.
func (r *reading) read(name string) (string, error) {
	if r.files--; r.files < 0 {
		return "", fmt.Errorf("%s: more than %d sets with files; want at most that many", quote(name), maxSetFiles)
	}
	begun := time.Now()
	text, err := r.by(name, r.bytes, r.time)
	r.time = max(0, r.time-time.Since(begun))
	r.bytes -= int64(len(text))
	if too := (*sizeError)(nil); errors.As(err, &too) && r.bytes < maxSetBytes {
		err = fmt.Errorf("%w, because the files of all sets have at most %d together", err, maxSetBytes)
	}
	return text, err
}
