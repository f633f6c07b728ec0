package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTwoInstances runs several instances in one namespace. The second one cannot open its status
// server, because the first one uses the address. The test sends commands to one instance while the
// other one is stopped or has been killed.
func TestTwoInstances(t *testing.T) {
	n := newNetwork(t)
	mute(t, n)
	first := start(t, n, acceptAll)
	socket := filepath.Join(t.TempDir(), "second.sock")
	file := configure(t, "[inside]\ntap = \"second-in\"\n[outside]\ntap = \"second-out\"\n")
	second := launch(t, n.Middle, nil, "run", "-c", file)
	ready := second.stderr.await(t, second, 0, `\bready\b.*\n`)
	if !strings.Contains(ready, `status="none: listen tcp `+standardStatus+`: bind: address already in use"`) {
		t.Errorf("the log of the second instance:\n%s", ready)
	}
	if !strings.Contains(first.stderr.String(), "status="+standardStatus+" ") {
		t.Errorf("the log of the first instance:\n%s", first.stderr.String())
	}
	run := func(code int, arguments ...string) string {
		t.Helper()
		p := launch(t, n.Middle, nil, arguments...)
		if got := p.wait(t); got != code {
			t.Errorf("%q: exit code %d, want %d\n%s%s", arguments, got, code, p.stdout.String(), p.stderr.String())
		}
		return p.stdout.String() + p.stderr.String()
	}
	var report struct {
		Sides map[string]struct{ Device string }
	}
	must(t, json.Unmarshal([]byte(run(0, "status", "-c", file, "--json")), &report))
	if report.Sides["inside"].Device != "second-in" {
		t.Errorf("%+v", report)
	}

	first.signal(t, syscall.SIGSTOP)
	run(0, "reload", "-c", file)
	if said := run(1, "status", "-c", first.file); !strings.Contains(said, "no answer within ") {
		t.Error(said)
	}
	first.signal(t, syscall.SIGCONT)
	run(0, "reload", "-c", first.file)

	third := launch(t, n.Middle, nil, "run", "-c", configure(t, "[inside]\ntap = \"third-in\"\n[outside]\ntap = \"third-out\"\n[status]\nlisten = \"\"\n"), "--socket", socket)
	if ready := third.stderr.await(t, third, 0, `\bready\b.*\n`); !strings.Contains(ready, "status=off socket="+socket+"\n") {
		t.Errorf("the log of the third instance:\n%s", ready)
	}
	run(0, "status", "--socket", socket)
	third.signal(t, syscall.SIGTERM)
	third.wait(t)
	if said := third.stderr.String(); !strings.Contains(said, `msg=stopping cause="terminated signal received"`) {
		t.Errorf("the log of the third instance:\n%s", said)
	}

	left := defaultSocket(t, "second-in")
	second.signal(t, syscall.SIGKILL)
	second.wait(t)
	run(1, "status", "-c", file)
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Errorf("the socket of the killed instance still exists: %v", err)
	}
}

// defaultSocket returns the path of the control socket of the instance with a TAP.
func defaultSocket(t *testing.T, tap string) string {
	t.Helper()
	found, err := filepath.Glob("/run/fragwall/" + tap + "+*.sock")
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("sockets of %q: %q", tap, found)
	}
	return found[0]
}
