package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/exit"
)

// The client of the control socket.

const (
	filePatience   = time.Second // for what an instance tells at once
	statusPatience = 5 * time.Second
	reloadPatience = time.Minute // for the outcome of a reload
)

// askSocket has an instance answer a request, and decodes the answer. Only an
// instance of this user or of root is asked.
func askSocket(path, request string, patience time.Duration, answer any) error {
	if dir := filepath.Dir(path); isDefault(dir) {
		if err := checkDirectory(dir); err != nil {
			return err
		}
	}
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return fmt.Errorf("socket %q: %w: is fragwall running?", path, cause(err))
	}
	defer c.Close()
	if err := checkPeer(c.(*net.UnixConn)); err != nil {
		return fmt.Errorf("socket %q: %w", path, err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err = fmt.Fprintln(c, request); err == nil {
		err = json.NewDecoder(io.LimitReader(c, maxReport)).Decode(answer)
	}
	if err != nil {
		return fmt.Errorf("socket %q: no answer to %q: %w", path, request, err)
	}
	return nil
}

// checkPeer checks that a process of this user or of root listens on a socket
// (SO_PEERCRED, unix(7)). Root, who may ask every instance, trusts the path that
// it was given.
func checkPeer(c *net.UnixConn) error {
	if os.Geteuid() == 0 {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return controlErr
	}
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = fmt.Errorf("user %d listens on it, neither this user nor root", peer.Uid)
	}
	return err
}

// askFile returns the configuration file of an instance. One that is stopped or
// stuck fails soon.
func askFile(path string) (string, error) {
	var o outcome
	err := askSocket(path, requestFile, filePatience, &o)
	return o.Text, err
}

// cause returns the system's error without the operation that failed.
func cause(err error) error {
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number
	}
	return err
}

// instance is what a client knows of a socket.
type instance struct {
	path string
	file string // its configuration
	err  error  // it does not answer
}

// askAll asks the instances of all sockets in directories at the same time. It
// removes sockets that nobody listens on.
func askAll(dirs []string) []instance {
	var paths []string
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
		paths = append(paths, found...)
	}
	all := make([]instance, len(paths))
	var asking sync.WaitGroup
	for i, path := range paths {
		asking.Go(func() {
			file, err := askFile(path)
			all[i] = instance{path, file, err}
		})
	}
	asking.Wait()
	var live []instance
	for _, one := range all {
		if errors.Is(one.err, syscall.ECONNREFUSED) {
			_ = clearDirectory(filepath.Dir(one.path)) // what stays is in nobody's way
			continue
		}
		live = append(live, one)
	}
	return live
}

// chooseSocket returns the socket that is given, or the one of the instance that
// [findSocket] finds, once its instance has answered: a stopped one fails soon,
// whatever it is to be asked for.
func chooseSocket(socket, file string) (path string, err error) {
	if socket != "" {
		path = socket
	} else if path, err = findSocket(file); err != nil {
		return "", err
	}
	_, err = askFile(path)
	return path, err
}

// ownDirectories returns the default directories that are there. One that is not
// this user's is an error, but for root's.
func ownDirectories() (dirs []string, err error) {
	for _, dir := range socketDirectories() {
		switch err := checkDirectory(dir); {
		case err == nil:
			dirs = append(dirs, dir)
		case errors.Is(err, os.ErrNotExist), dir == rootSockets && os.Geteuid() != 0:
		default:
			return nil, err
		}
	}
	return dirs, nil
}

// findSocket returns the default socket of the instance that runs with a
// configuration file or, where file is "", of the only one that runs.
func findSocket(file string) (string, error) {
	dirs, err := ownDirectories()
	if err != nil {
		return "", err
	}
	wanted, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var found, silent []string
	for _, one := range askAll(dirs) {
		switch {
		case one.err != nil:
			silent = append(silent, one.path)
		case file == "" || one.file == wanted:
			found = append(found, one.path)
		}
	}
	if file == "" { // a stopped instance may be the one that is meant
		found, silent = append(found, silent...), nil
	}
	where, more := strings.Join(socketDirectories(), " or "), ""
	if len(silent) > 0 {
		more = "; no answer from " + strings.Join(silent, ", ")
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", exit.Usagef("several instances are running; choose one by --socket or -c: %s", strings.Join(found, ", "))
	case file != "":
		return "", fmt.Errorf("no instance of fragwall with a socket in %s runs with %s: is it running?%s", where, file, more)
	}
	return "", fmt.Errorf("no instance of fragwall has a socket in %s: is it running?", where)
}
