package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileTimeout   = time.Second // for what an instance knows at once
	statusTimeout = 5 * time.Second
	reloadTimeout = time.Minute
	maxReport     = 256 << 20 // bytes: of 100,000 rules with long names
)

// Reload has an instance read its rules again: the one with a socket, with a
// configuration file, or the only one where both are "". An error says that it
// could not be asked.
func Reload(socket, file string) (o Outcome, err error) {
	path, err := choose(socket, file)
	if err == nil {
		err = ask(path, RequestReload, reloadTimeout, &o)
	}
	return o, err
}

// ask has an instance answer a request, and decodes the answer. Only an
// instance of this user or of root is asked.
func ask(path, request string, timeout time.Duration, answer any) error {
	if dir := filepath.Dir(path); isDefault(dir) {
		if err := checkDirectory(dir); err != nil {
			return err
		}
	}
	c, err := net.DialTimeout("unix", path, timeout)
	if err != nil {
		return fmt.Errorf("socket %q: %w: is fragwall running?", path, systemError(err))
	}
	defer c.Close()
	if err := checkPeer(c.(*net.UnixConn)); err != nil {
		return fmt.Errorf("socket %q: %w", path, err)
	}
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err = fmt.Fprintln(c, request); err == nil {
		err = json.NewDecoder(io.LimitReader(c, maxReport)).Decode(answer)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("socket %q: no answer within %s: is fragwall stopped?", path, timeout)
	case err != nil:
		return fmt.Errorf("socket %q: no answer: %w", path, systemError(err))
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
	var o Outcome
	err := ask(path, RequestFile, fileTimeout, &o)
	return o.Text, err
}

// systemError returns the system's error without the operation that failed.
func systemError(err error) error {
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number
	}
	return err
}
