package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace.
type Namespace struct {
	name string
	file *os.File
}

// NewNamespace makes a namespace with its loopback interface down, as the kernel does. It
// needs CAP_SYS_ADMIN. The name is for messages.
func NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{name: name}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: CAP_SYS_ADMIN is missing", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make network namespace %q: %w", name, err)
	}
	return n, nil
}

// OpenNamespace opens an existing namespace by its path, as ip-netns(8) creates it.
func OpenNamespace(path string) (*Namespace, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Namespace{name: path, file: file}, nil
}

// Do runs f on a new thread in the namespace, and returns its error. Processes
// that f starts are in the namespace, too. Any number of calls may run at once. A call
// that begins after Close fails.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", n.name, err)
		}
		return f()
	})
}

// enter moves the calling thread into the namespace.
func (n *Namespace) enter() error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) { failure = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	return errors.Join(err, failure)
}

// Close releases the namespace. The kernel removes it with the last socket, device
// descriptor and process in it.
func (n *Namespace) Close() error { return n.file.Close() }

// onThread runs f on a thread that ends with it, because f's changes to the thread cannot
// be undone.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the runtime ends the thread
		done <- f()
	}()
	return <-done
}
