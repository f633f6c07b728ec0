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

// process is the running program.
type process struct {
	*os.Process
	ns             *lab.Namespace // that it runs in
	stdout, stderr record
	ended          chan struct{} // closed when code is set
	code           int
}

// launch starts the program in a namespace, on a thread that prepare, if it is not nil,
// may change. If the tests die, so does the program.
func launch(t *testing.T, ns *lab.Namespace, prepare func() error, arguments ...string) *process {
	t.Helper()
	return launchBinary(t, program, ns, prepare, arguments...)
}

// launchBinary is launch for another binary.
func launchBinary(t *testing.T, binary string, ns *lab.Namespace, prepare func() error, arguments ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	c := exec.Command(binary, arguments...)
	c.Stdout, c.Stderr = &p.stdout, &p.stderr
	p.begin(t, ns, prepare, c)
	return p
}

// launchInto starts the program with a file for its standard error.
func launchInto(t *testing.T, ns *lab.Namespace, stderr *os.File, arguments ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	c := exec.Command(program, arguments...)
	c.Stdout, c.Stderr = &p.stdout, stderr
	p.begin(t, ns, nil, c)
	return p
}

// begin starts a command; see launch.
func (p *process) begin(t *testing.T, ns *lab.Namespace, prepare func() error, c *exec.Cmd) {
	t.Helper()
	p.ns = ns
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		_ = ns.Do(func() error { // whose thread has to outlive the process
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

// wait returns the exit code; -1 for a signal.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(waitTimeout):
		t.Fatalf("the program has not ended; it said:\n%s", p.stderr.String())
		return 0
	}
}

// signal sends a signal to a process that should be there.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatalf("%v: %v; the program said:\n%s", s, err, p.stderr.String())
	}
}

// record stores the output of a process, by Write.
type record struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed at the next change; nil where nobody waits
}

// Write stores b, and wakes those who wait for a change.
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

// ready waits until frames flow.
func (p *process) ready(t *testing.T) {
	t.Helper()
	p.stderr.await(t, p, 0, `\bready\b`)
}

// await waits until the text after its first from bytes matches a regular expression, and
// returns the match.
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
			t.Fatalf("the program ended with %d before it said %q:\n%s%s", p.code, expression, p.stdout.String(), p.stderr.String())
		case <-deadline:
			t.Fatalf("the program has not said %q:\n%s%s", expression, p.stdout.String(), p.stderr.String())
		}
	}
}

// eventually repeats try until it succeeds, for conditions without an event.
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
