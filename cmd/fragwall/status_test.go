package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/status"
)

// exampleReport is a report, and one of two seconds later.
func exampleReport() (before, now *status.Report) {
	port, gone, id, limited := uint16(53), false, uint32(0xabc), uint64(12)
	of := func(seconds uint64) *status.Report {
		missed := 1500 * seconds
		return &status.Report{
			Build: status.Build{Version: "1.2.3"}, Time: time.Unix(int64(1000+seconds), 0), UptimeSeconds: 3600 + float64(seconds), Ready: true,
			Sides: map[string]status.Side{
				"inside": {Link: "up", MTU: 1500, Missed: &missed, ReceivedFrames: 1234567 + 100000*seconds, ReceivedBytes: 1 << 30, Forwarded: 1234560 + 100000*seconds, ForwardedBytes: 1 << 30,
					DroppedFrames: 7, Dropped: map[string]uint64{"policy_default": 5, "fragment_overlap": 2}, LatencyP50: 64e-6, LatencyP99: 0.002048},
				"outside": {NIC: "eth1", Joined: &gone, Link: "down", MTU: 9000, LinkSpeed: 25e9 / 8, ReceivedFrames: 3 + 2*seconds, Forwarded: 2, Waiting: 1, DroppedFrames: 2 * seconds, Dropped: map[string]uint64{"policy_default": 2 * seconds}},
			},
			Fragments:  status.Fragments{Mode: "reassemble", Datagrams: 1, DatagramsLimit: 65536, Bytes: 2200, BytesLimit: 64 << 20},
			Flows:      status.Flows{Known: 12, Limit: 1 << 20},
			Policy:     status.Policy{Generation: 2, Since: time.Unix(0, 0), Default: "drop", Stateful: true, Failures: 1},
			EventsTold: 2, EventsSuppressed: 1234,
			Events: []events.Event{
				{Time: time.Unix(1001, 0), Kind: "link", From: "outside", Device: "eth1", Link: "down"},
				{Time: time.Unix(1001, 0), Kind: "drop", From: "outside", Protocol: "udp", Src: "192.0.2.1", Dst: "192.0.2.2",
					Bytes: 3042, Length: 3028, MTU: 1500, Action: "drop", Reason: "exceeds_mtu"},
				{Time: time.Unix(1000, 0), Kind: "drop", From: "inside", VLANs: []uint16{10}, Protocol: "udp", Src: "2001:db8::1", SrcPort: &port,
					Dst: "2001:db8::2", DstPort: &port, Fragments: 3, Identification: &id, Missing: []string{"1448-2895", "4344-"}, Bytes: 4150, Action: "drop", Reason: "fragment_timeout"},
				{Time: time.Unix(999, 0), Kind: "match", From: "outside", Protocol: "icmp", Src: "192.0.2.1", Dst: "192.0.2.2",
					ICMPType: new(uint8), ICMPCode: new(uint8), Bytes: 98, Action: "accept", Rule: "no \x1b[2J"},
				{Time: time.Unix(998, 0), Kind: "drop", From: "inside", Bytes: 2, Action: "drop", Reason: "ethernet_\x1b[2J"},
				{Time: time.Unix(997, 0), Kind: "drop", From: "inside", Protocol: "icmpv6", Src: "fe80::1", Dst: "ff02::16", ICMPType: new(uint8), ICMPCode: new(uint8),
					Bytes: 90, Action: "drop", Reason: "policy_default", OverLimit: "dns", Background: "mld"},
			},
			Rules: []status.Rule{
				{Name: "dns", Action: "accept", Datagrams: 10 * seconds, Bytes: 12345678, OverLimit: &limited},
				{Name: "no \x1b[2J", Action: "drop"},
			},
		}
	}
	return of(0), of(2)
}

func TestStatusTable(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	before, now := exampleReport()
	for name, before := range map[string]*status.Report{"status-once.txt": nil, "status-rates.txt": before} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			writeStatus(&text, now, before)
			golden(t, name, text.String())
		})
	}
}

// TestStatusCommand asks servers of several kinds.
func TestStatusCommand(t *testing.T) {
	_, report := exampleReport()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "":
			_ = json.NewEncoder(w).Encode(report)
		case "Bearer 0123456789abcdef":
			_, _ = w.Write([]byte("hello"))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	write(t, filepath.Join(dir, "other"), "another-token-of-theirs")
	write(t, filepath.Join(dir, "short"), "short")
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer guarded.Close()
	closed := httptest.NewServer(nil)
	nobody := strings.TrimPrefix(closed.URL, "http://")
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
		{"not fragwall", []string{"--address", address, "--token-file", filepath.Join(dir, "token")}, 1, "", "not an answer of fragwall"},
		{"another token", []string{"--address", address, "--token-file", filepath.Join(dir, "other")}, 1, "", "it wants another token"},
		{"a token is wanted", []string{"--address", strings.TrimPrefix(guarded.URL, "http://")}, 1, "", "it wants a token; give the file"},
		{"a short token", []string{"--token-file", filepath.Join(dir, "short")}, exit.Usage, "", fmt.Sprintf("--token-file: %q holds 5 bytes; want a token of at least 16", filepath.Join(dir, "short"))},
		{"no token", []string{"--token-file", filepath.Join(dir, "none")}, exit.Usage, "", "no such file or directory"},
		{"nobody", []string{"--address", nobody}, 1, "", "connection refused: is fragwall running"},
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

// TestStatusOverSocket asks by the control socket.
func TestStatusOverSocket(t *testing.T) {
	_, report := exampleReport()
	path := filepath.Join(t.TempDir(), "s.sock")
	serveTest(t, path, control.Handlers{
		control.RequestFile:   func() any { return control.Outcome{Text: "/x.toml"} },
		control.RequestStatus: func() any { return report },
	})
	whole, err := json.Marshal(report)
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
