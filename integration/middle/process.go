package middle

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun/lab"
)

// AnyCPU is the argument of [Start] for a process that is not bound to a CPU.
const AnyCPU = -1

// Start starts a process in a namespace, bound to a CPU. The kernel kills the process if this
// program dies. When the process ends, Start sends the result of [exec.Cmd.Wait] to ended.
func Start(ns *lab.Namespace, cpu int, c *exec.Cmd, ended chan<- error) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // the thread must outlive the process, because of Pdeathsig
			err := bind(cpu)
			if err == nil {
				err = c.Start()
			}
			started <- err
			if err == nil {
				ended <- c.Wait()
			}
			return nil
		})
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %q: %w", filepath.Base(c.Path), err)
	}
	return nil
}

// bind binds the calling thread, and processes that it starts, to a CPU.
func bind(cpu int) error {
	if cpu == AnyCPU {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind to cpu %d: %w", cpu, err)
	}
	return nil
}

// Output stores the output of a process, and detects when the process is ready.
type Output struct {
	marker string
	ready  chan struct{} // closed when the marker was found

	// mu guards the fields below.
	mu   sync.Mutex
	all  bytes.Buffer
	seen bool // the marker was found
}

// NewOutput returns an Output for a process that writes marker when it is ready.
func NewOutput(marker string) *Output {
	return &Output{marker: marker, ready: make(chan struct{})}
}

// Write stores b, and searches the whole output for the marker.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(b)
	if !o.seen && bytes.Contains(o.all.Bytes(), []byte(o.marker)) {
		o.seen = true
		close(o.ready)
	}
	return len(b), nil
}

// String returns the whole output.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// Await waits until the process is ready. It returns an error if the process ends, or after a
// timeout of one minute.
func (o *Output) Await(ended <-chan error) error {
	select {
	case <-o.ready:
		return nil
	case err := <-ended:
		return fmt.Errorf("ended before it was ready: %v: %s", err, o)
	case <-time.After(processTimeout):
		return fmt.Errorf("not ready after %v: %s", processTimeout, o)
	}
}

// processTimeout is the maximum time until a process is ready, or until fragwall ends after SIGTERM.
const processTimeout = time.Minute

// Lines around the part of a file that [Update] replaces.
const (
	tablesBegin = "<!-- tables -->\n"
	tablesEnd   = "<!-- end of tables -->\n"
)

// Update replaces the tables in a file: the lines between tablesBegin and tablesEnd.
func Update(path string, tables []byte) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(tablesBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tablesEnd))
	if !ok || !ok2 {
		return fmt.Errorf("update %q: no lines %q and %q", path, tablesBegin, tablesEnd)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(tablesBegin), tables, []byte(tablesEnd), after), 0o644)
}
