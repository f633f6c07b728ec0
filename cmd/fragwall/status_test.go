package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/report"
)

// exampleReport returns a report with some frames.
func exampleReport() *report.Report {
	return &report.Report{
		Sides: map[string]report.Side{"inside": {ReceivedFrames: 1434567}},
		Rules: []report.Rule{{Name: "dns", Line: 7, Action: "accept", Datagrams: 1234, Bytes: 98765}, {Name: "web", Line: 12, Action: "drop"}},
	}
}

// TestStatusCommand asks several kinds of servers, and none.
func TestStatusCommand(t *testing.T) {
	answer := exampleReport()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "":
			_ = json.NewEncoder(w).Encode(answer)
		case "Bearer 0123456789abcdef":
			_, _ = w.Write([]byte("hello"))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	writeFile(t, filepath.Join(dir, "other"), "another-token-of-theirs")
	writeFile(t, filepath.Join(dir, "short"), "short")
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer guarded.Close()
	closed := httptest.NewServer(nil)
	unused := strings.TrimPrefix(closed.URL, "http://")
	closed.Close()
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"table", []string{"--address", address}, 0, "received frames", ""},
		{"a port alone", []string{"--address", address[strings.LastIndexByte(address, ':'):]}, 0, "received frames", ""},
		{"json", []string{"--address", address, "--json"}, 0, `"received_frames":1434567`, ""},
		{"no such rule", []string{"--address", address, "--rule", "nosuch"}, 1, "", `--rule: the policy in force has no rule "nosuch"`},
		{"not fragwall", []string{"--address", address, "--token-file", filepath.Join(dir, "token")}, 1, "", "not an answer from fragwall"},
		{"a different token", []string{"--address", address, "--token-file", filepath.Join(dir, "other")}, 1, "", "it requires a different token"},
		{"token required", []string{"--address", strings.TrimPrefix(guarded.URL, "http://")}, 1, "", "it requires a token; name the file"},
		{"a short token", []string{"--token-file", filepath.Join(dir, "short")}, exit.Usage, "", fmt.Sprintf("--token-file: %q has 5 bytes; want a token of at least 16", filepath.Join(dir, "short"))},
		{"no token", []string{"--token-file", filepath.Join(dir, "none")}, exit.Usage, "", "no such file or directory"},
		{"no server", []string{"--address", unused}, 1, "", "connection refused: is fragwall running"},
		{"no port", []string{"--address", "127.0.0.1"}, 2, "", "want a host and a port"},
		{"no address", []string{"--address", "a b"}, 2, "", "want a host and a port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := execute(append([]string{"status"}, tt.args...), &stdout, &stderr)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("code %d\n%s\n%s", code, &stdout, &stderr)
			}
		})
	}
}

// TestStatusOverSocket asks over the control socket.
func TestStatusOverSocket(t *testing.T) {
	answer := exampleReport()
	path := filepath.Join(t.TempDir(), "s.sock")
	serveTest(t, path, control.Handlers{
		control.RequestFile:   func() any { return control.Outcome{Text: "/x.toml"} },
		control.RequestStatus: func() any { return answer },
	})
	whole, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := runCommand(t, "status", "--socket", path, "--json"); stdout != string(whole)+"\n" || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if stdout, stderr, code := runCommand(t, "status", "--socket", path); !strings.Contains(stdout, "received frames") || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := runCommand(t, "status", "--socket", path, "--address", "127.0.0.1:1"); code != exit.Usage {
		t.Errorf("exit %d: %q", code, stderr)
	}
}

// TestStatusOfRule checks that --rule prints only that rule's counters, as a table and as JSON.
func TestStatusOfRule(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(exampleReport()) }))
	defer server.Close()
	args := []string{"status", "--address", strings.TrimPrefix(server.URL, "http://"), "--rule", "dns"}
	table := "  RULE  ACTION  DATAGRAMS    BYTES\n  dns   accept      1,234  98.8 kB\n"
	if stdout, stderr, code := runCommand(t, args...); stdout != table || code != 0 {
		t.Errorf("exit %d: %q, %q; want %q", code, stdout, stderr, table)
	}
	object := `{"name":"dns","line":7,"action":"accept","datagrams":1234,"bytes":98765}` + "\n"
	if stdout, stderr, code := runCommand(t, append(args, "--json")...); stdout != object || code != 0 {
		t.Errorf("exit %d: %q, %q; want %q", code, stdout, stderr, object)
	}
}
