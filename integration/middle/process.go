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

// AnyCPU has [Start] bind a process to no CPU.
const AnyCPU = -1

// Start starts a process in a namespace, bound to a CPU. Should this program
// die, so does the process; how it ended goes to ended.
func Start(ns *lab.Namespace, cpu int, c *exec.Cmd, ended chan<- error) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // whose thread has to outlive the process
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

// bind binds the calling thread, and so what it starts, to a CPU.
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

// Output keeps what a process writes, and tells when it is ready.
type Output struct {
	marker string
	ready  chan struct{} // closed then

	// mu guards what follows.
	mu   sync.Mutex
	all  bytes.Buffer
	seen bool // the marker was
}

// NewOutput returns one for a process that writes marker when it is ready.
func NewOutput(marker string) *Output {
	return &Output{marker: marker, ready: make(chan struct{})}
}

// Write keeps b, and looks for the marker in all that came.
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

// Await waits until the process is ready. The error says how it ended instead,
// or that it took too long.
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

// processTimeout is how long a process may take to be ready, or fragwall to end.
const processTimeout = time.Minute

// Marks around what [Update] replaces in a file.
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
