package standby

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// Limit is the maximum time that a standby waits for the next process of the service.
const Limit = 30 * time.Second

// readyTimeout is the maximum time until a standby has taken over.
const readyTimeout = 20 * time.Second

// Manager is the part of systemd that a standby needs.
type Manager interface {
	// Restarts reports whether a unit is being stopped in order to be started again.
	Restarts(ctx context.Context, unit string) (bool, error)
	// Detach moves a process out of the unit, into a scope with the given name.
	Detach(ctx context.Context, scope string, pid int) error
}

// Command is the program that runs a standby, with its arguments.
type Command struct {
	Path   string
	Args   []string
	Stderr io.Writer
}

// Run lets a standby take over if a unit restarts. It returns once the standby forwards. On an
// error, either the process of the unit continues, or the process that has taken over stops as
// that one would.
func Run(ctx context.Context, m Manager, unit string, c Command) error {
	restarts, err := m.Restarts(ctx, unit)
	if err != nil || !restarts {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ready, err := listen()
	if err != nil {
		return err
	}
	defer ready.Close()
	process := exec.Command(c.Path, c.Args...)
	process.Stdout, process.Stderr = c.Stderr, c.Stderr
	process.Env = append(without(os.Environ(), "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"), "NOTIFY_SOCKET="+ready.LocalAddr().String())
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := process.Start(); err != nil {
		return fmt.Errorf("start the standby: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	// Without a scope, the standby ends with the unit, like the process of the unit.
	detachErr := m.Detach(ctx, fmt.Sprintf("fragwall-standby-%d.scope", process.Process.Pid), process.Process.Pid)
	return errors.Join(await(ctx, ready, ended), detachErr)
}

// leftTimeout is enough time to read what is in the socket.
const leftTimeout = 100 * time.Millisecond

var errEnded = errors.New("it has ended")

// listen opens the socket on which the standby reports that it is ready (sd_notify(3)).
func listen() (*net.UnixConn, error) {
	name := fmt.Sprintf("@fragwall/standby/%d", os.Getpid()) // abstract (unix(7))
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("wait for the standby: %w", err)
	}
	return c, nil
}

// await waits until the standby has reported that it is ready. It fails if the standby ends before.
func await(ctx context.Context, ready *net.UnixConn, ended <-chan error) error {
	said := make(chan error, 1)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := ready.Read(b)
			if err != nil || slices.Contains(strings.Split(string(b[:n]), "\n"), systemd.SdNotifyReady) {
				said <- err
				return
			}
		}
	}()
	select {
	case err := <-said:
		return err
	case err := <-ended:
		// What it reported before it ended can still be in the socket.
		if deadlineErr := ready.SetReadDeadline(time.Now().Add(leftTimeout)); deadlineErr == nil && <-said == nil {
			return nil
		}
		return fmt.Errorf("the standby did not take over: %w", cmp.Or(err, errEnded))
	case <-ctx.Done():
		return fmt.Errorf("the standby did not take over: %w", ctx.Err())
	}
}

// without returns the variables except those with the given names.
func without(environment []string, names ...string) (rest []string) {
	for _, v := range environment {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains(names, name) {
			rest = append(rest, v)
		}
	}
	return rest
}
