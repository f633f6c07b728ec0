package integration_test

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fragwall/tun/lab"
)

// TestDemo checks the output of the demo.
func TestDemo(t *testing.T) {
	p, clean := startDemo(t)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s%s", code, p.stdout.String(), p.stderr.String())
	}
	shown := p.stdout.String()
	for _, want := range []string{
		"ok      IPv4: a fragmented request", "ok      IPv6: a fragmented request",
		"ok      IPv4: the same request to port 5999", "ok      IPv6: the same request to port 5999",
		"ok      IPv4: fragments in reverse", "ok      IPv6: fragments in reverse",
		"ok      IPv4: a TCP transfer", "ok      IPv6: a TCP transfer",
		"from inside  received ", "from outside received ",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the output has no %q:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "FAILED") || p.stderr.String() != "" {
		t.Errorf("%s%s", shown, p.stderr.String())
	}
	clean()
}

// TestDemoInterrupted interrupts the demo in the middle of its output.
func TestDemoInterrupted(t *testing.T) {
	p, clean := startDemo(t)
	p.stdout.await(t, p, 0, "ok ")
	p.signal(t, syscall.SIGINT)
	if code := p.wait(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if said := p.stderr.String(); said != "fragwall: demo: interrupted\n" {
		t.Errorf("stderr %q", said)
	}
	clean()
}

// startDemo starts the demo in a namespace. The returned function checks that the demo left no devices
// and no processes.
func startDemo(t *testing.T) (p *process, clean func()) {
	t.Helper()
	ns, err := lab.NewNamespace("demo")
	must(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	before := describe(t, ns)
	p = launch(t, ns, nil, "demo")
	return p, func() {
		t.Helper()
		sameAs(t, ns, before)
		if err := unix.Kill(-p.Pid, 0); err != unix.ESRCH { // its process group
			t.Errorf("processes are left: %v", err)
		}
	}
}

// TestVersion checks the version information that bug reports need.
func TestVersion(t *testing.T) {
	ns, err := lab.NewNamespace("version")
	must(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	p := launch(t, ns, nil, "version")
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	want := regexp.MustCompile(`^fragwall \d+\.\d+\.\d+\ngo go1\..+\ngvisor v0\.0\.0-\d{14}-[0-9a-f]{12}\n$`)
	if said := p.stdout.String(); !want.MatchString(said) {
		t.Errorf("stdout:\n%s", said)
	}
}
