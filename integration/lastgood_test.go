package integration_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fragwall/packet/verdict"
)

// TestLastGood restarts a box whose configuration is broken and whose set file is missing, and then
// corrects the configuration.
func TestLastGood(t *testing.T) {
	n := newNetwork(t)
	before := describe(t, n.Middle)
	dir := filepath.Join(t.TempDir(), "kept")
	file := configure(t, devices+"[sets]\nhosts = { file = \"hosts.txt\" }\n[[rule]]\nname = \"hosts\"\naction = \"accept\"\nsrc = \"@hosts\"\n")
	hosts := filepath.Join(filepath.Dir(file), "hosts.txt")
	must(t, os.WriteFile(hosts, []byte("0.0.0.0/0\n::/0\n"), 0o600))
	start := func() *process {
		t.Helper()
		p := launch(t, n.Middle, nil, "run", "-c", file, "--last-good", dir, "--watch-config")
		p.ready(t)
		return p
	}
	kept := func(want bool) error {
		text, err := ask(n.Middle, "/metrics")
		if err != nil {
			return err
		}
		if strings.Contains(text, "fragwall_policy_last_good 1\n") != want {
			return os.ErrInvalid
		}
		return nil
	}
	passes := func() {
		t.Helper()
		ping(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside].Addr(false), 4000)
	}

	p := start()
	passes()
	must(t, os.WriteFile(hosts, []byte("0.0.0.0/0\n::/0 # of both families\n"), 0o600))
	p.stderr.await(t, p, 0, `msg=reloaded generation=2 `)
	if text := p.stderr.String(); strings.Contains(text, "cannot keep a copy") {
		t.Fatal(text)
	}
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	eventually(t, func() error { // the kernel may remove the TAPs after a delay
		return n.Middle.Do(func() error {
			if _, err := net.InterfaceByName(taps[verdict.Inside]); err == nil {
				return errors.New("the TAP still exists")
			}
			return nil
		})
	})

	must(t, os.Remove(hosts))
	must(t, os.WriteFile(file, []byte("[inside\n"), 0o600))
	p = start()
	p.stderr.await(t, p, 0, `level=ERROR msg="started with the last good configuration, because the configuration file is broken".*mistake=`)
	must(t, kept(true))
	passes()
	if _, err := ask(n.Middle, "/readyz"); err != nil {
		t.Error(err)
	}
	status := launch(t, n.Middle, nil, "status")
	if code := status.wait(t); code != 0 || !strings.Contains(status.stdout.String(), "ready, with the last good configuration, up") || !strings.Contains(status.stdout.String(), "the configuration file is broken: ") || !strings.Contains(status.stdout.String(), file+":1: ") {
		t.Errorf("status: %d\n%s", code, status.stdout.String())
	}

	must(t, os.WriteFile(file, []byte(devices+acceptAll), 0o600)) // the watch detects this
	p.stderr.await(t, p, 0, `msg=reloaded generation=2 .*keys changed: policy.default`)
	eventually(t, func() error { return kept(false) })
	passes()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sameAs(t, n.Middle, before)

	must(t, os.Remove(file)) // neither the file nor the stored copy exists
	must(t, os.RemoveAll(dir))
	p = launch(t, n.Middle, nil, "run", "-c", file, "--last-good", dir)
	if code := p.wait(t); code != 2 || !strings.Contains(p.stderr.String(), "no last good configuration to start with") {
		t.Errorf("exit code %d\n%s", code, p.stderr.String())
	}
}
