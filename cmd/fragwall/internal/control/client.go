package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileTimeout   = time.Second // for requests that an instance answers at once
	statusTimeout = 5 * time.Second
	reloadTimeout = time.Minute
	maxReport     = 256 << 20 // bytes: enough for 100,000 rules with long names
	maxTries      = 5         // of a request, if one process after another is replaced
)

// Instance identifies the instance to ask: the one with a socket, the one with a configuration
// file, or the only one if both are "".
type Instance struct{ Socket, File string }

// Reload tells an instance to read its rules again. An error means that the request could not
// be made. If another process takes over from the instance, that one is told.
func (i Instance) Reload() (o Outcome, err error) {
	err = again(func() (bool, error) {
		o = Outcome{}
		path, err := i.choose()
		if err == nil {
			err = ask(path, RequestReload, reloadTimeout, &o)
		}
		return o.Replaced, err
	})
	return o, err
}

// again repeats a request, up to maxTries times, while another process takes over from the
// instance that was asked.
func again(request func() (repeat bool, err error)) error {
	for tries := 1; ; tries++ {
		if repeat, err := request(); !repeat || tries == maxTries {
			return err
		}
	}
}

// Listens reports whether an instance listens on a socket, or might do so: only a request can
// tell.
func Listens(path string) bool {
	err := dial(path)
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED)
}

// Exchange requests an exchange with an instance. The argument is sent as JSON.
func (i Instance) Exchange(request string, argument any) (*net.UnixConn, error) {
	path, err := i.choose()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(argument)
	if err != nil {
		return nil, err
	}
	c, err := connect(path, fileTimeout)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(fileTimeout))
	if _, err := fmt.Fprintf(c, "%s %s\n", request, text); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %q: %w", path, systemError(err)), c.Close())
	}
	_ = c.SetDeadline(time.Time{})
	return c.(*net.UnixConn), nil
}

// Peer returns the user at the other end of a connection.
func Peer(c *net.UnixConn) (uid int, err error) {
	peer, err := credentials(c)
	if err != nil {
		return -1, err
	}
	return int(peer.Uid), nil
}

// connect connects to an instance of this user or of root.
func connect(path string, timeout time.Duration) (net.Conn, error) {
	if dir := filepath.Dir(path); isDefault(dir) && !isOfRoot(dir) {
		if err := checkDirectory(dir); err != nil {
			return nil, err
		}
	}
	c, err := net.DialTimeout("unix", path, timeout)
	if err != nil {
		hint := "is fragwall running?"
		if errors.Is(err, fs.ErrPermission) {
			hint = "only its owner and root may use it"
		}
		return nil, fmt.Errorf("socket %q: %w: %s", path, systemError(err), hint)
	}
	if err := checkPeer(c.(*net.UnixConn)); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %q: %w", path, err), c.Close())
	}
	return c, nil
}

// ask sends a request to an instance, and decodes the answer.
func ask(path, request string, timeout time.Duration, answer any) error {
	c, err := connect(path, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
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

// checkPeer checks that a process of this user or of root listens on a socket (SO_PEERCRED,
// unix(7)). Root, who may ask every instance, trusts the path that was given.
func checkPeer(c *net.UnixConn) error {
	if os.Geteuid() == 0 {
		return nil
	}
	peer, err := credentials(c)
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = fmt.Errorf("user %d listens on it, neither this user nor root", peer.Uid)
	}
	return err
}

// credentials returns the credentials of the other end of a connection.
func credentials(c *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return nil, controlErr
	}
	return peer, err
}

// askFile returns the configuration file of an instance. If the instance is stopped or hangs,
// it fails soon.
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
