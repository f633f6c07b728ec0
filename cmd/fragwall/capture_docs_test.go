package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/trace"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/capture"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// TestCaptureDocument checks that capture prints the example in docs/operations.md, apart from
// times, while the capture of docs/replay.md passes through a wire with its policy.
func TestCaptureDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "# fragwall capture --dropped\n")
	example, _, _ = strings.Cut(example, "```")
	example = strings.Replace(example, "^C", "", 1)

	socket := filepath.Join(t.TempDir(), "s.sock")
	begun := serveReplayed(t, socket)
	stdout, stderr := &strings.Builder{}, &begunWriter{begun: begun}
	if code := execute([]string{"capture", "--dropped", "--socket", socket, "-c", "5"}, stdout, stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr.text)
	}
	first, last, _ := strings.Cut(stderr.text.String(), "\n")
	if got, want := untimed(first+"\n"+stdout.String()+last), untimed(example); got != want {
		t.Errorf("docs/operations.md is stale; apart from times, it should be\n%s", got)
	}
}

// TestCaptureFilters checks that capture prints only frames that match the filter, and ends at
// the count.
func TestCaptureFilters(t *testing.T) {
	for filter, want := range map[string]string{
		"-c 2 --host 10.0.0.53 --dropped": "[drop: ", "-c 2 --host 192.0.2.7": "192.0.2.7.40000", "-c 3 --src 198.51.100.0/24 --reason fragment_overlap,fragment_poisoned": "IP 198.51.100.9",
	} {
		socket := filepath.Join(t.TempDir(), "s.sock")
		stdout, stderr := &strings.Builder{}, &begunWriter{begun: serveReplayed(t, socket)}
		args := append([]string{"capture", "--socket", socket}, strings.Fields(filter)...)
		code := execute(args, stdout, stderr)
		if lines := strings.Count(stdout.String(), "\n"); code != 0 || args[4] != strconv.Itoa(lines) || strings.Count(stdout.String(), want) != lines {
			t.Errorf("%s: exit code %d: %s%s", filter, code, stdout, &stderr.text)
		}
	}
}

// TestCaptureFileFull checks that a write error of the pcapng is reported once, with the
// summary.
func TestCaptureFileFull(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	stderr := &begunWriter{begun: serveReplayed(t, socket)}
	code := execute([]string{"capture", "--dropped", "--socket", socket, "-w", "/dev/full"}, io.Discard, stderr)
	if text := stderr.text.String(); code != exit.Failed || strings.Count(text, "no space left on device") != 1 || !strings.Contains(text, " captured, ") {
		t.Errorf("exit %d: %s", code, text)
	}
}

// untimed returns lines without the time at the start of a line, if there is one.
func untimed(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		if at, rest, _ := strings.Cut(line, " "); strings.Count(at, ":") == 2 {
			line = rest
		}
		b.WriteString(line)
	}
	return b.String()
}

// begunWriter calls begun before the first write: capture prints its first line to stderr once
// it receives frames.
type begunWriter struct {
	text  strings.Builder
	begun func()
}

func (w *begunWriter) Write(b []byte) (int, error) {
	if w.text.Len() == 0 {
		w.begun()
	}
	return w.text.Write(b)
}

// serveReplayed serves captures of a wire on a control socket. begun forwards the frames of
// docs/replay/capture.pcapng through the wire.
func serveReplayed(t *testing.T, socket string) (begun func()) {
	t.Helper()
	config, err := rules.Load(replayDocs + "/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	c := datapath.Config(config)
	for side := range c.Sides {
		c.Sides[side].Lanes, c.Sides[side].MTU = []tun.Lane{tuntest.Discard}, 1500
	}
	recorder := events.NewRecorder(events.NewHandler(io.Discard, "text", nil), filter.Rate{})
	c.Observer = recorder
	s := wire.NewStepper(c)
	hub := trace.NewHub(s.Bump, recorder, func(func(*flow.Key) bool) {})
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		l.Serve(ctx, control.Service{Handlers: control.Handlers{control.RequestFile: func() any { return control.Outcome{} }}, Streams: control.Streams{
			control.RequestCapture: func(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
				var r trace.Request
				return errors.Join(json.Unmarshal(argument, &r), hub.Serve(ctx, &r, to))
			},
		}})
	})
	t.Cleanup(func() { stop(); serving.Wait(); s.Close() })
	return func() {
		file, err := os.Open(replayDocs + "/capture.pcapng")
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		r, err := capture.NewReader(file)
		for err == nil {
			var f capture.Frame
			if f, err = r.Read(); err == nil {
				s.Forward(verdict.Side(f.Interface), tun.Frame{Data: f.Data}, f.Time)
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}
