package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"fragwall/rules"
)

// The control socket of an instance lets its owner ask it to reload. It is in
// a directory that nobody else may enter, under a name made of the two TAPs and
// of the network namespace, which together no two instances have.

const (
	socketSuffix   = ".sock"
	newPrefix      = ".new-"          // of a directory in which a socket is bound
	longestRequest = 64               // bytes
	socketPatience = 5 * time.Second  // for a request
	answerPatience = 10 * time.Second // for the client to take the answer
	lockPatience   = time.Second      // for another instance that starts
	maxClients     = 16               // at the same time
)

// requests returns the answer to a line that a client sends, which is encoded
// as JSON. A client that only connects changes nothing.
type requests map[string]func() any

const (
	requestReload = "reload" // an outcome
	requestFile   = "file"   // an outcome: the configuration file's absolute name
	requestStatus = "status" // a [status.Report]
)

// outcome is what became of a request.
type outcome struct {
	Code int    // exit code for the client
	Text string // lines for people
}

// rootSockets is where root's sockets are.
var rootSockets = "/run/fragwall" // but for tests

// socketDirectories returns where sockets are by default: for root in rootSockets,
// for others in the first of these that is theirs or that they can make, as an
// image has no directory for temporary files: in XDG_RUNTIME_DIR, rootSockets, and
// the directory for temporary files.
func socketDirectories() []string {
	if os.Geteuid() == 0 {
		return []string{rootSockets}
	}
	dirs := []string{rootSockets, filepath.Join(os.TempDir(), fmt.Sprintf("fragwall-%d", os.Geteuid()))}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		dirs = append([]string{filepath.Join(dir, "fragwall")}, dirs...)
	}
	return dirs
}

// socketDirectory returns the default directory of an instance that starts, which
// it makes where it is missing.
func socketDirectory() (string, error) {
	var errs []error
	for _, dir := range socketDirectories() {
		err := ownDirectory(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// isDefault reports whether sockets are in a directory by default.
func isDefault(dir string) bool { return slices.Contains(socketDirectories(), dir) }

// socketPath returns the default socket of an instance with a configuration
// that runs in this thread's network namespace.
func socketPath(c *rules.Config) (string, error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	namespace := info.Sys().(*syscall.Stat_t).Ino
	name := fmt.Sprintf("%s+%s@%d%s", c.Inside.TAP, c.Outside.TAP, namespace, socketSuffix)
	dir, err := socketDirectory()
	return filepath.Join(dir, name), err
}

// listenSocket opens a socket, in place of one that nobody listens on any more.
func listenSocket(path string) (*socket, error) {
	dir := filepath.Dir(path)
	if isDefault(dir) {
		if err := ownDirectory(dir); err != nil {
			return nil, err
		}
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if isDefault(dir) {
		_ = removeDead(dir) // what stays is in nobody's way
	}
	switch err := dial(path); {
	case err == nil:
		return nil, fmt.Errorf("socket %q: another instance listens on it", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old socket: %w", err)
		}
	}
	// Bound under a name that is nobody's yet, so that there is no moment in
	// which others may open it under its own.
	private, err := os.MkdirTemp(dir, newPrefix)
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	defer os.RemoveAll(private)
	bound := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(bound, 0o600), os.Rename(bound, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %q: %w", path, err), l.Close())
	}
	return &socket{l, path}, nil
}

// socket is a listener and the name that it goes by.
type socket struct {
	net.Listener
	path string
}

// ownDirectory makes a directory for this user alone, or checks that it is.
func ownDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("directory for sockets: %w", err)
	}
	return checkDirectory(dir)
}

// checkDirectory checks that a directory for sockets is this user's alone: in
// any other, someone else may have put a socket of their own.
func checkDirectory(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory for sockets: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(owner) != os.Geteuid() {
		return fmt.Errorf("directory for sockets %q: it is not this user's alone; want mode 0700, or another one by --socket", dir)
	}
	return nil
}

// dial reports whether somebody listens on a socket: it fails with ECONNREFUSED
// where the process that did is gone.
func dial(path string) error {
	c, err := net.DialTimeout("unix", path, filePatience)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// lockDirectory keeps others from adding and removing sockets in a directory
// (flock(2)).
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("directory for sockets: %w", err)
	}
	deadline := time.Now().Add(lockPatience)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("lock directory for sockets %q: %w", dir, err), f.Close())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// clearDirectory removes from a directory what killed instances left there, if
// the directory is this user's alone.
func clearDirectory(dir string) error {
	if err := ownDirectory(dir); err != nil {
		return err
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return removeDead(dir)
}

// removeDead removes sockets that refuse connections, and directories in which
// one was being made. The directory has to be locked.
func removeDead(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("directory for sockets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), newPrefix):
			errs = append(errs, os.RemoveAll(path))
		case e.Type() == os.ModeSocket && strings.HasSuffix(e.Name(), socketSuffix) && errors.Is(dial(path), syscall.ECONNREFUSED):
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// serveSocket answers requests until ctx is done, several clients at the same
// time: one that is silent, or whose reload takes long, does not keep others
// waiting. Then it removes the socket.
func serveSocket(ctx context.Context, l *socket, known requests) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer os.Remove(l.path)
	var answering sync.WaitGroup
	defer answering.Wait()
	places := make(chan struct{}, maxClients)
	for {
		places <- struct{}{}
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-places
			continue
		}
		answering.Go(func() {
			defer func() { <-places }()
			answerSocket(ctx, c, known)
		})
	}
}

// answerSocket reads a request, for which it waits no longer than ctx lasts, and
// answers it.
func answerSocket(ctx context.Context, c net.Conn, known requests) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(socketPatience))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(c, longestRequest)).ReadString('\n')
	answer := known[strings.TrimSuffix(line, "\n")]
	if err != nil || answer == nil {
		return
	}
	result := answer()
	_ = c.SetWriteDeadline(time.Now().Add(answerPatience))
	_ = json.NewEncoder(c).Encode(result)
}
