package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	socketSuffix = ".sock"
	newPrefix    = ".new-"     // of a directory in which a new socket is bound
	lockTimeout  = time.Second // for another instance that starts
)

// rootDirectory is the directory of root's sockets.
var rootDirectory = "/run/fragwall" // a variable for tests

// Directories returns the default directories of sockets. For root this is rootDirectory. For
// other users it is the first of these that belongs to them or that they can create:
// XDG_RUNTIME_DIR, rootDirectory, and the directory for temporary files, which is missing in
// fragwall's container image.
func Directories() []string {
	if os.Geteuid() == 0 {
		return []string{rootDirectory}
	}
	dirs := []string{rootDirectory, filepath.Join(os.TempDir(), fmt.Sprintf("fragwall-%d", os.Geteuid()))}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		dirs = append([]string{filepath.Join(dir, "fragwall")}, dirs...)
	}
	return dirs
}

// defaultDirectory returns the default directory of an instance that starts. It creates the
// directory if it is missing.
func defaultDirectory() (string, error) {
	var errs []error
	for _, dir := range Directories() {
		err := ownDirectory(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// isDefault reports whether a directory is a default directory for sockets.
func isDefault(dir string) bool { return slices.Contains(Directories(), dir) }

// isOfRoot reports whether a directory belongs to root and the user is not root. A process that
// listens there is checked by its credentials (see [checkPeer]).
func isOfRoot(dir string) bool { return dir == rootDirectory && os.Geteuid() != 0 }

// Path returns the default socket of an instance with these TAPs that runs in this
// thread's network namespace.
func Path(insideTAP, outsideTAP string) (string, error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	namespace := info.Sys().(*syscall.Stat_t).Ino
	name := fmt.Sprintf("%s+%s@%d%s", insideTAP, outsideTAP, namespace, socketSuffix)
	dir, err := defaultDirectory()
	return filepath.Join(dir, name), err
}

// Listen opens a socket. It replaces a socket on which no process listens any more.
func Listen(path string) (*Listener, error) {
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
		_ = removeDead(dir) // whatever remains does no harm
	}
	switch err := dial(path); {
	case err == nil:
		return nil, fmt.Errorf("socket %q: another instance listens on it", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old socket: %w", err)
		}
	}
	// The socket is bound under a temporary name, so that other users can never open it under
	// its final name before its mode is set.
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
	return newListener(l, path), nil
}

// Adopt returns the listener of a socket that another process has opened at a path. It takes
// ownership of the descriptor.
func Adopt(fd int, path string) (*Listener, error) {
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	return newListener(l, path), nil
}

func newListener(l net.Listener, path string) *Listener {
	return &Listener{Listener: l, path: path, pace: rate.NewLimiter(maxRate, maxClients)}
}

// ownDirectory creates a directory for this user only, or checks that an existing one is
// accessible to this user only.
func ownDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("directory for sockets: %w", err)
	}
	return checkDirectory(dir)
}

// checkDirectory checks that a directory for sockets is accessible to this user only. In any
// other directory, another user could have created the socket.
func checkDirectory(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory for sockets: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(owner) != os.Geteuid() {
		return fmt.Errorf("directory for sockets %q: other users can access it; want mode 0700, or choose another path with --socket", dir)
	}
	return nil
}

// dial connects to a socket. It fails with ECONNREFUSED if the process that listened on it has
// ended.
func dial(path string) error {
	c, err := net.DialTimeout("unix", path, fileTimeout)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// lockDirectory prevents others from adding and removing sockets in a directory (flock(2)).
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("directory for sockets: %w", err)
	}
	deadline := time.Now().Add(lockTimeout)
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

// clearDirectory removes from a directory what killed instances left there, if the directory is
// accessible to this user only.
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

// removeDead removes sockets that refuse connections, and directories in which a socket was
// being created. The directory must be locked.
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
