package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/explain"
	"fragwall/filter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestExplainLive asks an instance that has flows and a rule with a limit.
func TestExplainLive(t *testing.T) {
	p := &filter.Policy{Stateful: true, Rules: []filter.Rule{
		{Name: "few", Line: 3, Action: verdict.Accept, From: new(verdict.Side), SrcPorts: filter.NewSet(filter.Range[uint16]{Lo: 7, Hi: 7}), Limit: filter.Rate{Count: 2, Per: time.Hour}},
		{Name: "out", Line: 9, Action: verdict.Accept, From: new(verdict.Side)},
	}}
	b, _ := startFlows(t, p)
	live := func(args string) (string, string, int) {
		return runCommand(t, append([]string{"explain", "--live", "--socket", "s.sock", "--proto", "udp"}, strings.Fields(args)...)...)
	}
	reply := "--from outside --src 192.0.2.1 --dst 10.0.0.1 --sport 53 --dport 40000"
	few := "--from inside --src 10.0.0.9 --dst 192.0.2.1 --sport 7 --dport 7"
	for _, tt := range []struct {
		args string
		want []string
	}{
		{reply, []string{"accept: it belongs to a flow that rule \"out\" (/x.toml:9) accepted\n", "  flow: UNREPLIED, started from inside 0.", "1 packet and 0 in reply\n", "policy generation 1"}},
		{strings.Replace(reply, "53", "54", 1), []string{"drop: no rule matches, so policy.default (/x.toml) decides\n", "it belongs to no known flow"}},
		{few, []string{"accept: rule \"few\" (/x.toml:3) is the first that matches\n", "up to 2/h", "limit of rule \"few\" (/x.toml:3): 2/h, 1 left now"}},
	} {
		for range 2 { // twice: a question uses up no limit
			stdout, stderr, code := live(tt.args)
			for _, want := range tt.want {
				if !strings.Contains(stdout, want) || stderr != "" || code != 0 {
					t.Errorf("%s: exit %d: %s%s\nwant %q", tt.args, code, stdout, stderr, want)
				}
			}
		}
	}
	judge(t, b, verdict.Inside, packettest.UDP(netip.MustParseAddrPort("10.0.0.9:7"), netip.MustParseAddrPort("192.0.2.1:7"), nil))
	if stdout, _, _ := live(few); !strings.Contains(stdout, "rule \"out\" (/x.toml:9) is the first") || !strings.Contains(stdout, "2/h, 0 left now") {
		t.Error(stdout)
	}
	stdout, _, code := live(reply + " --json")
	var a explain.LiveAnswer
	if err := json.Unmarshal([]byte(stdout), &a); err != nil || code != 0 || !a.Passes || a.Verdict != "accept" || a.Flow == nil || a.Flow.Rule != "out" || a.Generation != 1 {
		t.Errorf("exit %d: %s, %v", code, stdout, err)
	}
	b.Reload(&filter.Policy{Stateful: true})
	if stdout, _, _ := live(reply); !strings.Contains(stdout, "drop: it belongs to a flow that policy.default (/x.toml) denies since a reload") || !strings.Contains(stdout, "generation 2") {
		t.Error(stdout)
	}
}

func TestExplainLiveMistakes(t *testing.T) {
	startFlows(t, acceptInside)
	question := " --from inside --proto udp --src 10.0.0.1 --dst 192.0.2.1"
	for args, want := range map[string]string{
		question:                                     "add -c FILE, or --live",
		"--socket s.sock" + question:                 "--socket needs --live",
		"--live --socket s.sock":                     "--from is missing",
		"--live --socket s.sock -c x.toml":           "--config and --socket exclude each other",
		"--live --src no --socket s" + question[:14]: "--proto is missing",
	} {
		if _, stderr, code := runCommand(t, append([]string{"explain"}, strings.Fields(args)...)...); code != exit.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d: %q, want %q", args, code, stderr, want)
		}
	}
	if _, stderr, code := runCommand(t, append([]string{"explain", "--live", "--socket", "none.sock"}, strings.Fields(question)...)...); code != exit.Failed || !strings.Contains(stderr, "is fragwall running?") {
		t.Errorf("exit %d: %q", code, stderr)
	}
}
