package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// startFlows serves, at s.sock, a box with six flows: a DNS flow and an HTTPS flow of each of
// 10.0.0.1 to 10.0.0.3. Flows of higher addresses carry larger datagrams. It returns the box
// and its log.
func startFlows(t testing.TB, p *filter.Policy) (b *wire.Bump, log *bytes.Buffer) {
	t.Helper()
	t.Chdir(t.TempDir())
	b, log = wire.New(wire.Config{Policy: p}), new(bytes.Buffer)
	for i := range 3 {
		for _, port := range []uint16{53, 443} {
			src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)}), 40000)
			judge(t, b, verdict.Inside, packettest.UDP(src, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port), packettest.Body(10+i)))
		}
	}
	serveStreams(t, "s.sock", control.Handlers{control.RequestFile: func() any { return control.Outcome{Text: "/x.toml"} }},
		inspect.Streams(inspect.Box{Lister: listing.New(b), Bump: b, Config: func() *rules.Config { return &rules.Config{File: "/x.toml", Policy: p} }, Log: slog.New(slog.NewTextHandler(log, nil)), Change: func(change func() error) error { return change() }}))
	return b, log
}

// judge returns the verdict of a box on a datagram.
func judge(t testing.TB, b *wire.Bump, from verdict.Side, d packettest.Datagram) filter.Verdict {
	t.Helper()
	frame := d.Frame()
	p := new(packet.Parsed)
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatal(why)
	}
	return b.Policy().Judge(&packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}, b.Elapsed)
}

var acceptInside = &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "out", Line: 3, Action: verdict.Accept, From: new(verdict.Side)}}}

// flowsOf runs "fragwall flows" with arguments.
func flowsOf(t *testing.T, args string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, append([]string{"flows", "--socket", "s.sock"}, strings.Fields(args)...)...)
}

func TestFlowsCommand(t *testing.T) {
	startFlows(t, acceptInside)
	for args, want := range map[string][]string{ // the expected sources and destination ports
		"":                                 {"10.0.0.1:443", "10.0.0.1:53", "10.0.0.2:443", "10.0.0.2:53", "10.0.0.3:443", "10.0.0.3:53"},
		"--port 53":                        {"10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"},
		"--src 10.0.0.2/31 --dport 443":    {"10.0.0.2:443", "10.0.0.3:443"},
		"--proto tcp":                      nil,
		"--from outside":                   nil,
		"--sort bytes -n 2":                {"10.0.0.3:443", "10.0.0.3:53"},
		"--sort bytes --port 53 -n 1":      {"10.0.0.3:53"},
		"--port 53 --sort bytes -n 100000": {"10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"},
	} {
		stdout, stderr, code := flowsOf(t, args+" --json")
		if stderr != "" || code != 0 {
			t.Errorf("%s: exit %d: %s", args, code, stderr)
		}
		var got []string
		for line := range strings.Lines(stdout) {
			var f listing.Flow
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%v:%d", f.Src, *f.DstPort))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
		if stdout, _, _ = flowsOf(t, args); strings.Count(stdout, "\n") != 1+len(want) || !strings.HasPrefix(stdout, "PROTO") {
			t.Errorf("%s: %s", args, stdout)
		}
	}
	if stdout, _, code := flowsOf(t, "-n 4"); strings.Count(stdout, "\n") != 5 || code != 0 {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if stdout, _, code := flowsOf(t, "--sort bytes"); !slices.IsSortedFunc(strings.Split(strings.TrimSpace(stdout), "\n")[1:], func(a, b string) int {
		return strings.Compare(strings.Fields(b)[2], strings.Fields(a)[2])
	}) || code != 0 {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

func TestFlowsCount(t *testing.T) {
	startFlows(t, acceptInside)
	for args, want := range map[string]string{"--count": "6\n", "--count --port 53": "3\n", "--count --json --src 10.0.0.1": `{"flows":2}` + "\n"} {
		if stdout, stderr, code := flowsOf(t, args); stdout != want || stderr != "" || code != 0 {
			t.Errorf("%s: exit %d: %q, %q", args, code, stdout, stderr)
		}
	}
}

// TestFlowsDelete checks that --delete ends flows, and that the rules judge their next
// datagrams.
func TestFlowsDelete(t *testing.T) {
	b, log := startFlows(t, acceptInside)
	reply := packettest.UDP(netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("10.0.0.1:40000"), packettest.Body(10))
	if v := judge(t, b, verdict.Outside, reply); v.Action != verdict.Accept {
		t.Fatal(v)
	}
	if stdout, stderr, code := flowsOf(t, "--delete --src 10.0.0.1 --dport 53"); stdout != "1 flow deleted\n" || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if v := judge(t, b, verdict.Outside, reply); v.Action == verdict.Accept {
		t.Errorf("%v", v)
	}
	if stdout, _, code := flowsOf(t, "--delete --all --json"); stdout != `{"deleted":5}`+"\n" || code != 0 || b.Policy().Flows() != 0 {
		t.Errorf("exit %d: %q, %d flows left", code, stdout, b.Policy().Flows())
	}
	for _, want := range []string{`msg="flows deleted" flows=1 filter="--src 10.0.0.1 --dport 53" uid=`, `msg="flows deleted" flows=5`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s, want %s", log, want)
		}
	}
	client := inspect.Client{Instance: control.Instance{Socket: "s.sock"}}
	if _, err := client.DeleteFlows(t.Context(), listing.Query{}, false); err == nil || !strings.Contains(err.Error(), "without a filter") {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "flow deletion refused") {
		t.Errorf("the log lacks the refused deletion: %s", log)
	}
}

func TestFlowsMistakes(t *testing.T) {
	startFlows(t, &filter.Policy{Default: verdict.Accept})
	for args, want := range map[string]string{
		"--delete":                    "without a filter would end all flows",
		"--delete --all --port 53":    "exclude each other",
		"--all":                       "--all needs --delete",
		"--delete --port 1 --count":   "--count and --delete exclude each other",
		"--count --sort age":          "--count and --sort exclude each other",
		"--sort size":                 "want bytes, packets, age or idle",
		"-n -1":                       "-n: -1",
		"--interval 1s":               "add --watch",
		"--watch --interval 1ms":      "too short",
		"--host 10.0.0.1/8":           `did you mean "10.0.0.0/8"`,
		"x":                           "unexpected argument",
		"-c x.toml --proto tcp":       "--config and --socket exclude each other",
		"--port 53 --dport http":      "--dport",
		"--from inside --from nobody": `want "inside" or "outside"`,
	} {
		if stdout, stderr, code := flowsOf(t, args); stdout != "" || code != exit.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d: %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
	if stdout, stderr, code := flowsOf(t, ""); !strings.HasPrefix(stdout, "PROTO") || !strings.Contains(stderr, "stateless") || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	if stdout, stderr, code := runCommand(t, "flows", "--socket", "none.sock"); code != exit.Failed || stdout != "" || !strings.Contains(stderr, "is fragwall running?") {
		t.Errorf("exit %d: %q", code, stderr)
	}
}

func TestFlowsCompletion(t *testing.T) {
	for args, want := range map[string]string{"--sort b": "bytes\n:4\n", "--from o": "outside\n:4\n", "--host 1": ":4\n"} {
		if stdout, _, _ := runCommand(t, append([]string{"__complete", "flows"}, strings.Fields(args)...)...); stdout != want {
			t.Errorf("%s: %q, want %q", args, stdout, want)
		}
	}
}
