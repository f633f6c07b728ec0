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

// AnyCPU makes [Start] bind a process to no CPU.
const AnyCPU = -1

// Start starts a process in a namespace, bound to a CPU. If this program dies, so does
// the process. Its result is sent to ended.
func Start(ns *lab.Namespace, cpu int, c *exec.Cmd, ended chan<- error) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // its thread has to outlive the process
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

// bind binds the calling thread, and so the processes that it starts, to a CPU.
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

// Output stores the output of a process, and detects when it is ready.
type Output struct {
	marker string
	ready  chan struct{} // closed then

	// mu guards what follows.
	mu   sync.Mutex
	all  bytes.Buffer
	seen bool // the marker was found
}

// NewOutput returns an Output for a process that writes marker when it is ready.
func NewOutput(marker string) *Output {
	return &Output{marker: marker, ready: make(chan struct{})}
}

// Write stores b, and looks for the marker in the whole output.
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

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// Await waits until the process is ready. The error says how it ended instead, or that
// the time ran out.
func (o *Output) Await(ended <-chan error) error {
	select {
	case <-o.ready:
		return nil
	case err := <-ended:
		return fmt.Errorf("ended at once: %v: %s", err, o)
	case <-time.After(processTimeout):
		return fmt.Errorf("not ready after %v: %s", processTimeout, o)
	}
}

// processTimeout is the time limit for a process to become ready, or for fragwall to
// stop.
const processTimeout = time.Minute

// Marks around the part of a file that [Update] replaces.
const (
	tablesBegin = "<!-- tables -->\n"
	tablesEnd   = "<!-- end of tables -->\n"
)

// Update puts tables between the marks in a file.
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
