package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/inspect"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// startWaiting serves, at s.sock, a box with a fragment mode and without frames yet.
func startWaiting(t *testing.T, mode packet.Mode) *wire.Stepper {
	t.Helper()
	t.Chdir(t.TempDir())
	end := wire.SideConfig{MTU: 1500, Lanes: []tun.Lane{tuntest.Sink(func([]tun.Frame) (int, error) { return 0, nil })}}
	s := wire.NewStepper(wire.Config{
		Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: &filter.Policy{Default: verdict.Accept}, Mode: mode,
		Fragments: stack.Options{TimeoutIPv4: 30 * time.Second, TimeoutIPv6: time.Minute, Memory: 1 << 20, MaxFragments: 100, MaxDatagrams: 100},
	})
	serveStreams(t, "s.sock", control.Handlers{control.RequestFile: func() any { return control.Outcome{Text: "/x.toml"} }},
		inspect.Streams(inspect.Box{Lister: listing.New(s.Bump), Bump: s.Bump, Log: slog.New(slog.DiscardHandler), Change: func(change func() error) error { return change() }}))
	t.Cleanup(s.Close)
	return s
}

// fragments returns the fragments of a datagram with 3,000 bytes of payload.
func fragments(src, dst string, id uint32) [][]byte {
	d := packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), packettest.Body(2992))
	d.ID = id
	return d.Fragments(1000)
}

func waitingOf(t *testing.T, args string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, append([]string{"waiting", "--socket", "s.sock"}, strings.Fields(args)...)...)
}

// waitBegan is the time at which the first fragments arrive.
var waitBegan = time.Unix(1_000_000, 0)

func TestWaitingCommand(t *testing.T) {
	s := startWaiting(t, packet.ModeReassemble)
	v4, v6 := fragments("10.0.0.1:40000", "192.0.2.1:53", 7), fragments("[2001:db8::1]:40000", "[2001:db8:1::1]:53", 8)
	s.Forward(verdict.Inside, tun.Frame{Data: v4[0]}, waitBegan)
	s.Forward(verdict.Outside, tun.Frame{Data: v6[2]}, waitBegan.Add(time.Second))
	other := fragments("10.0.1.1:40000", "192.0.2.1:53", 9)
	s.Forward(verdict.Inside, tun.Frame{Data: other[1]}, waitBegan.Add(2*time.Second))
	wrong := packettest.UDP(netip.MustParseAddrPort("10.0.1.1:40000"), netip.MustParseAddrPort("192.0.2.1:53"), packettest.Body(2992))
	wrong.ID = 9
	s.Forward(verdict.Inside, tun.Frame{Data: wrong.Fragments(1200)[1]}, waitBegan.Add(4*time.Second))
	lines := []string{
		`{"from":"inside","protocol":"udp","src":"10.0.0.1","sport":40000,"dst":"192.0.2.1","dport":53,"identification":7,"fragments":1,"received":["0-999"],"missing":["1000-"],"received_bytes":1000,"memory_bytes":MEMORY,"age_seconds":4,"expires_seconds":26,"poisoned":false}`,
		`{"from":"outside","src":"2001:db8::1","dst":"2001:db8:1::1","identification":8,"fragments":1,"received":["2000-2999"],"missing":["0-1999"],"received_bytes":1000,"length_bytes":3000,"memory_bytes":MEMORY,"age_seconds":3,"expires_seconds":57,"poisoned":false}`,
		`{"from":"inside","protocol":"udp","src":"10.0.1.1","dst":"192.0.2.1","identification":9,"fragments":1,"received_bytes":1000,"memory_bytes":MEMORY,"age_seconds":2,"expires_seconds":28,"poisoned":true,"reason":"fragment_overlap"}`,
	}
	for args, want := range map[string][]int{
		"": {0, 1, 2}, "-n 2": {0, 1}, "-n 100000": {0, 1, 2}, "--from outside": {1}, "--proto udp": {0, 2}, "--dport 53": {0}, "--host 10.0.0.0/23": {0, 2}, "--vlan 5": {},
	} {
		stdout, stderr, code := waitingOf(t, args+" --json")
		got := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
		if stdout == "" {
			got = nil
		}
		for i := range got {
			var w listing.Waiting
			if err := json.Unmarshal([]byte(got[i]), &w); err != nil || w.Memory <= 0 {
				t.Fatalf("%s: %v", got[i], err)
			}
			got[i] = strings.Replace(got[i], fmt.Sprintf(`_bytes":%d,"age`, w.Memory), `_bytes":MEMORY,"age`, 1)
		}
		var expected []string
		for _, i := range want {
			expected = append(expected, lines[i])
		}
		if !slices.Equal(got, expected) || stderr != "" || code != 0 {
			t.Errorf("%s: exit %d: %s\n%s\nwant\n%s", args, code, stderr, strings.Join(got, "\n"), strings.Join(expected, "\n"))
		}
	}
	stdout, _, code := waitingOf(t, "")
	for i, want := range []string{"PROTO", "1000-", "0-1999", "poisoned:fragment_overlap"} {
		if rows := strings.Split(stdout, "\n"); code != 0 || len(rows) != 5 || !strings.Contains(rows[i], want) {
			t.Errorf("exit %d: %s\nwant %s", code, stdout, want)
		}
	}
}

func TestWaitingBySource(t *testing.T) {
	s := startWaiting(t, packet.ModeReassemble)
	for i, source := range []string{"10.0.0.1", "10.0.1.1", "10.0.1.2", "10.0.2.1"} {
		for _, frame := range fragments(source+":40000", "192.0.2.1:53", uint32(i))[:1+i/3] {
			s.Forward(verdict.Inside, tun.Frame{Data: frame}, waitBegan)
		}
	}
	stdout, stderr, code := waitingOf(t, "--by-source --json")
	var got []string
	for line := range strings.Lines(stdout) {
		var source listing.Source
		if err := json.Unmarshal([]byte(line), &source); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %v %d %d", source.From, source.Src, source.Datagrams, source.Fragments))
	}
	if want := []string{"inside 10.0.1.0/24 2 2", "inside 10.0.2.0/24 1 2", "inside 10.0.0.0/24 1 1"}; !slices.Equal(got, want) || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, got, stderr)
	}
	if stdout, _, code := waitingOf(t, "--by-source -n 1"); strings.Count(stdout, "\n") != 2 || !strings.Contains(stdout, "10.0.1.0/24") || code != 0 {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

// TestWaitingJudged checks the state of datagrams in a mode that judges the first fragment
// alone.
func TestWaitingJudged(t *testing.T) {
	s := startWaiting(t, packet.ModeValidate)
	s.Forward(verdict.Inside, tun.Frame{Data: fragments("10.0.0.1:40000", "192.0.2.1:53", 7)[0]}, waitBegan)
	stdout, _, code := waitingOf(t, "--json")
	if want := `"poisoned":false,"verdict":"accept"}`; !strings.Contains(stdout, want) || code != 0 {
		t.Errorf("exit %d: %s", code, stdout)
	}
	s.Reload(&filter.Policy{})
	s.Forward(verdict.Inside, tun.Frame{Data: fragments("10.0.0.1:40000", "192.0.2.1:53", 8)[0]}, waitBegan)
	if stdout, _, _ := waitingOf(t, ""); !strings.Contains(stdout, "drop:policy_default") {
		t.Error(stdout)
	}
}

// TestNoIncompleteDatagrams asks in a mode without incomplete datagrams, and with invalid flags.
func TestNoIncompleteDatagrams(t *testing.T) {
	startWaiting(t, packet.ModeDrop)
	if stdout, stderr, code := waitingOf(t, ""); strings.Count(stdout, "\n") != 1 || stderr != "" || code != 0 {
		t.Errorf("exit %d: %q, %q", code, stdout, stderr)
	}
	for args, want := range map[string]string{"-n -1": "-n: -1", "--interval 2s": "add --watch", "--proto nosuch": "--proto", "x": "unexpected argument"} {
		if _, stderr, code := waitingOf(t, args); code != exit.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d: %q", args, code, stderr)
		}
	}
}
