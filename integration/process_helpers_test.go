package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fragwall/tun/lab"
)

// process is a process of the program.
type process struct {
	*os.Process
	ns             *lab.Namespace // in which it runs
	stdout, stderr record
	ended          chan struct{} // closed when code is set
	code           int
}

// launch starts the program in a namespace. If prepare is not nil, it runs before on the thread that
// starts the program, and may change the thread's attributes. The kernel kills the program if the
// tests die.
func launch(t *testing.T, ns *lab.Namespace, prepare func() error, arguments ...string) *process {
	t.Helper()
	return launchBinary(t, program, ns, prepare, arguments...)
}

// launchBinary does what launch does, with another binary.
func launchBinary(t *testing.T, binary string, ns *lab.Namespace, prepare func() error, arguments ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	c := exec.Command(binary, arguments...)
	c.Stdout, c.Stderr = &p.stdout, &p.stderr
	p.begin(t, ns, prepare, c)
	return p
}

// launchInto starts the program with a file as its standard error.
func launchInto(t *testing.T, ns *lab.Namespace, stderr *os.File, arguments ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	c := exec.Command(program, arguments...)
	c.Stdout, c.Stderr = &p.stdout, stderr
	p.begin(t, ns, nil, c)
	return p
}

// begin starts a command, as launch does.
func (p *process) begin(t *testing.T, ns *lab.Namespace, prepare func() error, c *exec.Cmd) {
	t.Helper()
	p.ns = ns
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // the thread must outlive the process, because of Pdeathsig
			if prepare != nil {
				if err := prepare(); err != nil {
					started <- fmt.Errorf("prepare: %w", err)
					return nil
				}
			}
			err := c.Start()
			started <- err
			if err == nil {
				_ = c.Wait()
				p.code = c.ProcessState.ExitCode()
				close(p.ended)
			}
			return nil
		})
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	p.Process = c.Process
	t.Cleanup(func() {
		if !p.hasEnded() {
			_ = p.Kill()
			<-p.ended
		}
	})
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// wait waits until the process ends. It returns the exit code, or -1 if a signal ended the process.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(waitTimeout):
		t.Fatalf("the program has not ended; its output:\n%s", p.stderr.String())
		return 0
	}
}

// signal sends a signal. The test fails if the process has ended.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatalf("send %v: %v; output of the program:\n%s", s, err, p.stderr.String())
	}
}

// record stores the output of a process.
type record struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed at the next change; nil if no goroutine waits
}

// Write stores b, and wakes the goroutines that wait in await.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// ready waits until the program says that it is ready.
func (p *process) ready(t *testing.T) {
	t.Helper()
	p.stderr.await(t, p, 0, `\bready\b`)
}

// await waits until the output without its first from bytes matches a regular expression, and
// returns that output.
func (r *record) await(t *testing.T, p *process, from int, expression string) string {
	t.Helper()
	want := regexp.MustCompile(expression)
	deadline := time.After(waitTimeout)
	for {
		r.mu.Lock()
		text := r.text.String()[from:]
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if want.MatchString(text) {
			return text
		}
		select {
		case <-changed:
		case <-p.ended:
			if text := r.String()[from:]; want.MatchString(text) {
				return text
			}
			t.Fatalf("the program ended with %d before its output matched %q:\n%s%s", p.code, expression, p.stdout.String(), p.stderr.String())
		case <-deadline:
			t.Fatalf("the output of the program does not match %q:\n%s%s", expression, p.stdout.String(), p.stderr.String())
		}
	}
}

// eventually repeats try until it returns nil. It is for conditions that cause no event.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
