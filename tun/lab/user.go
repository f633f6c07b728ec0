package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// inUserNamespace is set in the environment of a process that Enter runs.
const inUserNamespace = "FRAGWALL_IN_USER_NAMESPACE"

// Enter makes sure that the process can make namespaces. If the process may not make
// them, Enter runs it again, with the same arguments, as root of a user namespace
// (user_namespaces(7)); then rerun is true, and the caller exits with that run's code. If
// ctx is done, that run gets SIGINT.
func Enter(ctx context.Context) (rerun bool, code int, err error) {
	trial, err := NewNamespace("trial")
	if err == nil {
		return false, 0, trial.Close()
	}
	if os.Geteuid() == 0 || os.Getenv(inUserNamespace) != "" {
		return false, 0, err
	}
	code, err = runAsRoot(ctx)
	return true, code, err
}

func runAsRoot(ctx context.Context) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find this program: %w", err)
	}
	c := exec.CommandContext(ctx, self, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), inUserNamespace+"=1")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("make a user namespace: %w: run as root, or allow user namespaces (sysctl user.max_user_namespaces)", err)
	}
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
