package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"fragwall/cmd/fragwall/internal/explain"
)

// expectations are for the policy of TestExplain. The policy meets the ones with even index and
// fails the others.
const expectations = `[[expect]]
from = "inside"
protocol = "udp"
src = "10.0.0.1"
dst = "192.0.2.1"
dst_port = 53
verdict = "accept"
rule = "dns"
[[expect]]
name = "the wrong host"
from = "inside"
protocol = "udp"
src = "10.0.1.1"
dst = "192.0.2.1"
dst_port = 53
verdict = "accept"
rule = "dns"
[[expect]]
from = "inside"
protocol = "icmp"
src = "10.0.1.1"
dst = "192.0.2.1"
verdict = "accept"
[[expect]]
from = "inside"
protocol = "icmp"
src = "10.0.1.1"
dst = "192.0.2.1"
verdict = "accept"
rule = ""
[[expect]]
from = "outside"
protocol = "icmpv6"
src = "fe80::1"
dst = "ff02::1"
icmp_type = "nd-neighbor-solicit"
verdict = "accept"
rule = ""
[[expect]]
from = "outside"
protocol = "icmpv6"
src = "fe80::1"
dst = "ff02::1"
icmp_type = "nd-neighbor-solicit"
fragmented = true
verdict = "accept"
rule = "pong"
`

// TestExpect checks that check prints one line per expectation that is not met, and its exit
// code. Two of the expectations match a rule with a limit, which counts as not reached.
func TestExpect(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "x.toml", explained)
	writeFile(t, "e.toml", expectations)
	stdout, stderr, code := runCommand(t, "check", "-c", "x.toml", "--expect", "e.toml")
	const want = `e.toml:9: "the wrong host": expected accept by rule "dns", but policy.default (x.toml) decides reject: from inside, udp 10.0.1.1:49152 > 192.0.2.1:53; of rule "dns" (x.toml:8) all matches but src
e.toml:24: expected accept by no rule, but rule "ping" (x.toml:15) decides accept: from inside, icmp 10.0.1.1 > 192.0.2.1, type 8, code 0
e.toml:39: expected accept by rule "pong", but RFC 6980 decides drop: from outside, icmpv6 fe80::1 > ff02::1, type 135, code 0, in fragments; there is no rule "pong"
`
	if stdout != "x.toml: 3 rules, fragments reassemble, default reject\n" || stderr != want || code != 1 {
		t.Errorf("exit %d\n%s%s\nwant\n%s", code, stdout, stderr, want)
	}
	tables := strings.SplitAfter(expectations, "[[expect]]\n")
	met := ""
	for i := 1; i < len(tables); i += 2 {
		met += "[[expect]]\n" + strings.TrimSuffix(tables[i], "[[expect]]\n")
	}
	writeFile(t, "e.toml", met)
	stdout, stderr, code = runCommand(t, "check", "-c", "x.toml", "--expect", "e.toml")
	if !strings.HasSuffix(stdout, "\ne.toml: 3 expectations met\n") || stderr != "" || code != 0 {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

// TestExpectJSON checks that check prints one object per expectation, met or not.
func TestExpectJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "x.toml", explained)
	writeFile(t, "e.toml", expectations)
	stdout, stderr, code := runCommand(t, "check", "-c", "x.toml", "--expect", "e.toml", "--json")
	if stderr != "" || code != 1 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	n := 0
	for line := range strings.Lines(stdout) {
		var r explain.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if r.Met != (n%2 == 0) || r.ExpectFile != "e.toml" || r.ExpectLine == 0 || r.File != "x.toml" || r.Verdict == "" {
			t.Errorf("object %d: %s", n, line)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d objects", n)
	}
}

// TestExamplesMeetExpectations checks the examples that have a file of expectations.
func TestExamplesMeetExpectations(t *testing.T) {
	files, err := filepath.Glob("../../examples/expect/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	for _, file := range files {
		example := filepath.Join("../../examples", filepath.Base(file))
		if stdout, stderr, code := runCommand(t, "check", "-c", example, "--expect", file); code != 0 || stderr != "" || !strings.Contains(stdout, "expectations met\n") {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
	}
}
