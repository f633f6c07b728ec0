package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/exit"
)

const explained = `[inside]
tap = "a"
[outside]
tap = "b"
[policy]
default = "reject"
stateful = true
[[rule]]
name = "dns"
action = "accept"
from = "inside"
protocol = "udp"
src = "10.0.0.0/24"
dst_port = 53
[[rule]]
name = "ping"
action = "accept"
protocol = "icmp"
limit = "5/s"
[[rule]]
name = "video"
action = "drop"
protocol = "udp"
dst = "2001:db8::/32"
vlan = 7
fragmented = true
`

func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err strings.Builder
	code = execute(args, &out, &err)
	return out.String(), err.String(), code
}

func TestExplain(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("x.toml", []byte(explained), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ args, want string }{
		{"--from inside --proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53", `from inside: udp 10.0.0.1:49152 > 192.0.2.1:53
accept: rule "dns" (x.toml:8) is the first that matches
`},
		{"--from outside --proto 17 --src 10.0.0.1 --dst 192.0.2.1 --sport 5 --dport 53", `from outside: udp 10.0.0.1:5 > 192.0.2.1:53
reject: no rule matches, so policy.default (x.toml) decides
  not rule "dns" (x.toml:8): all matches but from
  unless it belongs to a flow that was accepted (policy.stateful)
`},
		{"--from inside --proto icmp --src 10.0.0.1 --dst 192.0.2.1", `from inside: icmp 10.0.0.1 > 192.0.2.1, type 8, code 0
accept: rule "ping" (x.toml:15) is the first that matches
  up to 5/s; beyond that, the rules after it decide
`},
		{"--from inside --proto udp --src 2001:db8::1 --dst 2001:db8::2 --vlan 7 --fragmented --dport 9", `from inside: udp [2001:db8::1]:49152 > [2001:db8::2]:9, vlan 7, in fragments
drop: rule "video" (x.toml:20) is the first that matches
  unless it belongs to a flow that was accepted (policy.stateful)
`},
		{"--from inside --proto udp --src 2001:db8::1 --dst 2001:db8::2 --vlan 7 --dport 53", `from inside: udp [2001:db8::1]:49152 > [2001:db8::2]:53, vlan 7
reject: no rule matches, so policy.default (x.toml) decides
  not rule "dns" (x.toml:8): all matches but src
  not rule "video" (x.toml:20): all matches but fragmented
  unless it belongs to a flow that was accepted (policy.stateful)
`},
		{"--from inside --proto icmpv6 --src 2001:db8::1 --dst ff02::1 --icmp-type nd-neighbor-solicit", `from inside: icmpv6 2001:db8::1 > ff02::1, type 135, code 0
accept: policy.neighbor_discovery (x.toml) decides, before any rule
`},
		{"--from inside --proto icmpv6 --src 2001:db8::1 --dst ff02::1 --icmp-type nd-neighbor-solicit --fragmented", `from inside: icmpv6 2001:db8::1 > ff02::1, type 135, code 0, in fragments
drop: neighbour discovery never passes in fragments (RFC 6980)
`},
		{"--from inside --proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53 --source-route --fragmented", `from inside: udp 10.0.0.1:49152 > 192.0.2.1:53, source route, in fragments
drop: policy.source_route (x.toml) decides, before any rule
`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, append([]string{"explain", "-c", "x.toml"}, strings.Fields(tt.args)...)...)
			if stdout != tt.want || stderr != "" || code != 0 {
				t.Errorf("exit %d\n%s%s\nwant\n%s", code, stdout, stderr, tt.want)
			}
		})
	}
}

func TestExplainWrongUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(file, []byte(explained), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ args, want string }{
		{"", "--from is missing"},
		{"--from inside --proto udp --src 10.0.0.1", "--dst is missing"},
		{"--from lan --proto udp --src 10.0.0.1 --dst 10.0.0.2", `--from: "lan" is unknown; want "inside" or "outside"`},
		{"--from inside --proto udpp --src 10.0.0.1 --dst 10.0.0.2", `--proto: "udpp" is not a protocol; did you mean "udp"?`},
		{"--from inside --proto udp --src 10.0.0 --dst 10.0.0.2", `--src: "10.0.0" is not an address; want one such as "10.0.0.1"`},
		{"--from inside --proto udp --src ::ffff:10.0.0.1 --dst 10.0.0.2", `--src: "::ffff:10.0.0.1" is an IPv4-mapped IPv6 address; did you mean "10.0.0.1"?`},
		{"--from inside --proto udp --src ::1 --dst 10.0.0.2", "--dst: 10.0.0.2 is not of the same family as --src ::1; want both IPv4 or both IPv6"},
		{"--from inside --proto udp --src 10.0.0.1 --dst 10.0.0.2 --dport 70000", "--dport: 70000 is out of range; want 0 to 65535"},
		{"--from inside --proto udp --src 10.0.0.1 --dst 10.0.0.2 --dport 1-5", `--dport: "1-5" is a range; want one number`},
		{"--from inside --proto icmp --src 10.0.0.1 --dst 10.0.0.2 --dport 5", `--dport: protocol "icmp" has no ports; remove it`},
		{"--from inside --proto icmp --src ::1 --dst ::2 --icmp-type 5", `--icmp-type: needs protocol "icmp" between IPv4 addresses, or "icmpv6" between IPv6 addresses; remove it, or change the protocol`},
		{"--from inside --proto icmp --src 10.0.0.1 --dst 10.0.0.2 --icmp-code x", `--icmp-code: "x" is not an ICMP code; want one such as 0`},
		{"--from inside --proto udp --src 10.0.0.1 --dst 10.0.0.2 --vlan 5000", `--vlan: 5000 is out of range; want 1 to 4094, or "none" for frames without a VLAN`},
		{"--nonsense", "unknown flag: --nonsense"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, append([]string{"explain", "-c", file}, strings.Fields(tt.args)...)...)
			want := "fragwall: " + tt.want + "; see \"fragwall explain --help\"\n"
			if stdout != "" || stderr != want || code != exit.Usage {
				t.Errorf("exit %d: %s%s\nwant %s", code, stdout, stderr, want)
			}
		})
	}
}

// TestExplainJSON checks that the answer is one object that contains what decides.
func TestExplainJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "x.toml", explained)
	for args, want := range map[string]string{
		"--proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53": `{"from":"inside","protocol":"udp","src":"10.0.0.1","sport":49152,"dst":"192.0.2.1","dport":53,` +
			`"fragmented":false,"source_route":false,"verdict":"accept","file":"x.toml","rule":"dns","line":8}`,
		"--proto udp --src 10.0.1.1 --dst 192.0.2.1 --dport 53 --vlan 7": `{"from":"inside","vlans":[7],"protocol":"udp","src":"10.0.1.1","sport":49152,"dst":"192.0.2.1","dport":53,` +
			`"fragmented":false,"source_route":false,"verdict":"reject","reason":"policy_default","file":"x.toml","key":"policy.default",` +
			`"near":[{"rule":"dns","line":8,"field":"src"}],"notes":["unless it belongs to a flow that was accepted (policy.stateful)"]}`,
		"--proto icmp --src 10.0.0.1 --dst 192.0.2.1": `{"from":"inside","protocol":"icmp","src":"10.0.0.1","dst":"192.0.2.1","icmp_type":8,"icmp_code":0,` +
			`"fragmented":false,"source_route":false,"verdict":"accept","file":"x.toml","rule":"ping","line":15,"limit":"5/s"}`,
	} {
		stdout, stderr, code := runCommand(t, append(strings.Fields("explain -c x.toml --json --from inside"), strings.Fields(args)...)...)
		if stdout != want+"\n" || stderr != "" || code != 0 {
			t.Errorf("exit %d\n%s%s\nwant\n%s", code, stdout, stderr, want)
		}
	}
}

// TestExplainUsesTheMode checks the answer for fragmented datagrams in each fragment mode.
func TestExplainUsesTheMode(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "x.toml", explained+"[fragments]\nmode = \"drop\"\n")
	const args, want = "explain -c x.toml --from inside --proto udp --src 10.0.0.1 --dst 192.0.2.1 --dport 53", "drop: fragments.mode (x.toml) drops all fragments\n"
	if stdout, stderr, code := runCommand(t, append(strings.Fields(args), "--fragmented")...); !strings.HasSuffix(stdout, want) || code != 0 {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := runCommand(t, strings.Fields(args)...); !strings.Contains(stdout, "accept: rule") || code != 0 {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	for mode, rest := range map[string]string{
		"first-accept-rest": "  its first fragment alone: the others pass without a verdict (fragments.mode, x.toml)\n",
		"first-drop-rest":   "  its first fragment alone: the others are dropped (fragments.mode, x.toml)\n",
		"validate":          "(x.toml:8) is the first that matches\n",
	} {
		writeFile(t, "x.toml", explained+"[fragments]\nmode = \""+mode+"\"\n")
		if stdout, stderr, code := runCommand(t, append(strings.Fields(args), "--fragmented")...); !strings.HasSuffix(stdout, rest) || code != 0 {
			t.Errorf("%s: exit %d\n%s%s", mode, code, stdout, stderr)
		}
	}
}
