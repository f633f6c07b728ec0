package main

import (
	"context"
	"strings"
	"sync"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
)

// serveTest serves a control socket until the end of the test.
func serveTest(t *testing.T, path string, handlers control.Handlers) {
	t.Helper()
	serveStreams(t, path, handlers, nil)
}

// serveStreams is serveTest with streams.
func serveStreams(t testing.TB, path string, handlers control.Handlers, streams control.Streams) {
	t.Helper()
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx, control.Service{Handlers: handlers, Streams: streams}) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
}

// TestReloadCommand checks that reload prints the outcome and exits with its code.
func TestReloadCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	outcome := control.Outcome{Text: "reloaded x.toml: 1 rule\ngeneration 2: nothing changed"}
	serveTest(t, "s.sock", control.Handlers{
		control.RequestFile:   func() any { return control.Outcome{Text: "/x.toml"} },
		control.RequestReload: func() any { return outcome },
	})
	stdout, stderr, code := runCommand(t, "reload", "--socket", "s.sock")
	if stdout != outcome.Text+"\n" || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	outcome = control.Outcome{Code: exit.Usage, Text: "x.toml:1: policy: 5 is a number"}
	stdout, stderr, code = runCommand(t, "reload", "--socket", "s.sock")
	if stdout != "" || stderr != outcome.Text+"\n" || code != exit.Usage {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := runCommand(t, "reload", "--socket", "none.sock"); code != exit.Failed || !strings.Contains(stderr, "is fragwall running?") {
		t.Errorf("exit %d: %q", code, stderr)
	}
}

// TestReloadPrintsText checks that reload escapes control characters in the answer of an
// instance.
func TestReloadPrintsText(t *testing.T) {
	t.Chdir(t.TempDir())
	serveTest(t, "s.sock", control.Handlers{control.RequestFile: func() any { return control.Outcome{} }, control.RequestReload: func() any {
		return control.Outcome{Text: "ü \x1b]0;title\a\x1b[2J\r\u009b1m\u202e\nnext \"line\""}
	}})
	stdout, _, code := runCommand(t, "reload", "--socket", "s.sock")
	if want := `ü \x1b]0;title\a\x1b[2J\r\u009b1m\u202e` + "\nnext \"line\"\n"; stdout != want || code != 0 {
		t.Errorf("exit %d: %q, want %q", code, stdout, want)
	}
}
