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
	"strings"
	"syscall"
	"time"

	"fragwall/rules"
)

// The control socket of an instance lets its owner ask it to reload. It is in
// a directory that nobody else may enter, under a name made of the two TAPs and
// of the network namespace, which together no two instances have.

const (
	socketSuffix   = ".sock"
	longestRequest = 64              // bytes
	socketPatience = 5 * time.Second // for a request
	reloadPatience = time.Minute     // for the outcome of one
)

// requests is what an instance does on a line that a client says: whoever only
// connects changes nothing.
type requests map[string]func() outcome

const (
	requestReload = "reload"
	requestFile   = "file" // the configuration file's absolute name
)

// outcome is what became of a request.
type outcome struct {
	Code int    // exit code for the client
	Text string // lines for people
}

// rootSockets is where root's sockets are.
var rootSockets = "/run/fragwall" // but for tests

// socketDirectory returns where sockets are by default: rootSockets for root,
// and for others a directory in XDG_RUNTIME_DIR or, without it, in the one for
// temporary files.
func socketDirectory() string {
	if os.Geteuid() == 0 {
		return rootSockets
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "fragwall")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("fragwall-%d", os.Geteuid()))
}

// socketPath returns the default socket of an instance with a configuration
// that runs in this thread's network namespace.
func socketPath(c *rules.Config) (string, error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	namespace := info.Sys().(*syscall.Stat_t).Ino
	name := fmt.Sprintf("%s+%s@%d%s", c.Inside.TAP, c.Outside.TAP, namespace, socketSuffix)
	return filepath.Join(socketDirectory(), name), nil
}

// listenSocket opens a socket, in place of one that nobody listens on any more.
func listenSocket(path string) (*socket, error) {
	dir := filepath.Dir(path)
	if dir == socketDirectory() {
		if err := ownDirectory(dir); err != nil {
			return nil, err
		}
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("socket %q: another instance listens on it", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old socket: %w", err)
		}
	}
	// Bound under a name that is nobody's yet, so that there is no moment in
	// which others may open it under its own.
	private, err := os.MkdirTemp(dir, ".new-")
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

// serveSocket answers requests, one after the other, until ctx is done. Then
// it removes the socket.
func serveSocket(ctx context.Context, l *socket, known requests) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer os.Remove(l.path)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		answerSocket(c, known)
	}
}

func answerSocket(c net.Conn, known requests) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(socketPatience))
	line, err := bufio.NewReader(io.LimitReader(c, longestRequest)).ReadString('\n')
	answer := known[strings.TrimSuffix(line, "\n")]
	if err != nil || answer == nil {
		return
	}
	result := answer()
	_ = c.SetDeadline(time.Now().Add(socketPatience))
	_ = json.NewEncoder(c).Encode(result)
}

// askSocket has an instance answer a request.
func askSocket(path, request string) (o outcome, err error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return o, fmt.Errorf("socket %q: %w: is fragwall running?", path, cause(err))
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(reloadPatience))
	if _, err = fmt.Fprintln(c, request); err == nil {
		err = json.NewDecoder(c).Decode(&o)
	}
	if err != nil {
		return o, fmt.Errorf("socket %q: no answer: %w", path, err)
	}
	return o, nil
}

// cause returns the system's error without the operation that failed.
func cause(err error) error {
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number
	}
	return err
}

// findSocket returns the default socket of the one instance that runs, with a
// configuration file where one is given. Sockets of those that were killed
// don't answer, and don't count.
func findSocket(file string) (string, error) {
	dir := socketDirectory()
	all, _ := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
	wanted, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var found []string
	for _, path := range all {
		if o, err := askSocket(path, requestFile); err == nil && (file == "" || o.Text == wanted) {
			found = append(found, path)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", &usageError{fmt.Errorf("several instances are running; choose one by --socket or -c: %s", strings.Join(found, ", "))}
	case file != "":
		return "", fmt.Errorf("no instance of fragwall with a socket in %q runs with %s: is it running?", dir, file)
	}
	return "", fmt.Errorf("no instance of fragwall has a socket in %q: is it running?", dir)
}
