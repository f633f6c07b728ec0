package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	validFile = `
[inside]
tap = "fw-in"
[outside]
tap = "fw-out"
[[rule]]
name = "dns"
action = "accept"
`
	wrongFile = `
[inside]
tap = "fw-in"
[outside]
tap = "fw-out"
tapp = "fw-out"
[policy]
default = "perhaps"
`
)

func TestExecute(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	valid, wrong := file("valid.toml", validFile), file("wrong.toml", wrongFile)
	noted := file("noted.toml", strings.Replace(validFile, "[outside]", "mtu = 1000\n[outside]", 1))
	twoMTUs := file("mtus.toml", strings.Replace(validFile, "[outside]", "mtu = 1500\n[outside]\nmtu = 1400", 1))
	missing := filepath.Join(dir, "missing.toml")
	tokenless := file("tokenless.toml", validFile+"[status]\ntoken_file = \"none\"\n")
	short := file("short.toml", validFile+"[status]\ntoken_file = \"token\"\n")
	file("token", "short\n")

	for _, test := range []struct {
		name           string
		arguments      []string
		code           int
		stdout, stderr string // regular expressions
	}{
		{"no command", nil, 2, `Usage:`, `^$`},
		{"help", []string{"--help"}, 0, `Usage:`, `^$`},
		{"help for a command", []string{"run", "--help"}, 0, `fragwall run -c FILE`, `^$`},
		{"unknown command", []string{"rum"}, 2, `^$`, `^fragwall: unknown command "rum"; did you mean "run"\?\n$`},
		{"abbreviated command", []string{"stat"}, 2, `^$`, `^fragwall: unknown command "stat"; did you mean "status"\?\n$`},
		{"command unlike any other", []string{"xxxxxx"}, 2, `^$`, `^fragwall: unknown command "xxxxxx"; see "fragwall --help"\n$`},
		{"unknown command with a flag", []string{"chek", "-c", valid}, 2, `^$`, `^fragwall: unknown command "chek"; did you mean "check"\?\n$`},
		{"unknown flag without a command", []string{"--nosuch"}, 2, `^$`, `^fragwall: unknown flag: --nosuch; see "fragwall --help"\n$`},
		{"completion for an unknown shell", []string{"completion", "nosuch"}, 2, `^$`, `^fragwall: unknown command "nosuch"; see "fragwall completion --help"\n$`},
		{"completion alone", []string{"completion"}, 2, `Usage:`, `^$`},
		{"completion for a shell", []string{"completion", "bash"}, 0, `__start_fragwall`, `^$`},
		{"help command with a command", []string{"help", "run"}, 0, `fragwall run -c FILE`, `^$`},
		{"help command", []string{"help"}, 0, `Available Commands:`, `^$`},
		{"help for an unknown command", []string{"help", "nosuch"}, 2, `^$`, `^fragwall: unknown command "nosuch"\n$`},
		{"help for an abbreviated command", []string{"help", "stat"}, 2, `^$`, `^fragwall: unknown command "stat"; did you mean "status"\?\n$`},
		{"version flag", []string{"--version"}, 0, `^fragwall \d+\.\d+\.\d+\n$`, `^$`},
		{"versions as JSON", []string{"version", "--json"}, 0, `^\{"version":"\d+\.\d+\.\d+","go":"go.*","gvisor":".+"\}\n$`, `^$`},

		{"completion of a side", []string{"__complete", "explain", "--from", "in"}, 0, `^inside\n:4\n`, ``},
		{"completion of a side of a capture", []string{"__complete", "replay", "--from", ""}, 0, `^inside\noutside\n:4\n`, ``},
		{"completion of a protocol", []string{"__complete", "explain", "--proto", "udp"}, 0, `^udp\nudplite\nudp-lite\n:4\n`, ``},
		{"completion of a type", []string{"__complete", "explain", "--icmp-type", "echo"}, 0, `^echo-reply\necho-request\n:4\n`, ``},
		{"completion of a file", []string{"__complete", "check", "-c", ""}, 0, `^toml\n:8\n`, ``},
		{"completion of a topic", []string{"__complete", "help", "ver"}, 0, `^version\t.*\n:4\n`, ``},
		{"unknown flag", []string{"check", "--file", valid}, 2, `^$`, `^fragwall: unknown flag: --file; see "fragwall check --help"\n$`},
		{"flag without its file", []string{"check", "-c"}, 2, `^$`, `^fragwall: .*-c.*; see "fragwall check --help"\n$`},

		{"check", []string{"check", "-c", valid}, 0, `^\Q` + valid + `\E: 1 rule, fragments reassemble, default drop\n$`, `^$`},
		{"check with a note", []string{"check", "--config", noted}, 0, `1 rule`, `^\Q` + noted + `\E:4: note: .*IPv6 needs at least 1280\n[^\n]*:4: note: inside.mtu: 1000, but outside.mtu is 1500 by default: [^\n]*\n$`},
		{"check of two MTUs", []string{"check", "-c", twoMTUs}, 0, `1 rule`, `^\Q` + twoMTUs + `\E:\d+: note: outside.mtu: 1400, but inside.mtu is 1500 at line \d+: [^\n]*\n$`},
		{"check without the token", []string{"check", "-c", tokenless}, 2, `^$`, `^fragwall: \Q` + tokenless + `\E: status.token_file: "\Q` + dir + `\E/none": no such file or directory\n$`},
		{"check of a short token", []string{"check", "-c", short}, 2, `^$`, `^fragwall: \Q` + short + `\E: status.token_file: .*has 5 bytes; want a token of at least 16\n$`},
		{"check of a file with mistakes", []string{"check", "-c", wrong}, 2, `^$`, `^\Q` + wrong + `\E:6: .*"outside.tap"\?\n\Q` + wrong + `\E:8: .*perhaps.*\n$`},
		{"check of a missing file", []string{"check", "-c", missing}, 2, `^$`, `^.*\Q` + missing + `\E.*\n$`},
		{"check of a directory", []string{"check", "-c", dir}, 2, `^$`, `^.*\Q` + dir + `\E.*\n$`},
		{"check without a file", []string{"check"}, 2, `^$`, `^fragwall: no configuration file given; add -c FILE\n$`},
		{"check of two files", []string{"check", "-c", valid, wrong}, 2, `^$`, `^fragwall: unexpected argument .*; see "fragwall check --help"\n$`},
		{"check without -c", []string{"check", valid}, 2, `^$`, `^fragwall: unexpected argument "\Q` + valid + `\E"; did you mean -c \Q` + valid + `\E\?\n$`},

		{"expectations without a file", []string{"check", "-c", valid, "--expect"}, 2, `^$`, `^fragwall: .*--expect.*; see "fragwall check --help"\n$`},
		{"check as JSON", []string{"check", "-c", valid, "--json"}, 2, `^$`, `^fragwall: --json needs --expect; add --expect FILE; see "fragwall check --help"\n$`},
		{"mistakes in both files", []string{"check", "-c", wrong, "--expect", valid}, 2, `^$`, `^\Q` + wrong + `\E:6: .*\n\Q` + wrong + `\E:8: .*\n\Q` + valid + `\E:2: unknown key "inside"; .*\n(\Q` + valid + `\E:.*\n)+$`},
		{"expectations in a missing file", []string{"check", "-c", valid, "--expect", missing}, 2, `^$`, `^read expectations: .*\Q` + missing + `\E.*\n$`},

		{"run with mistakes", []string{"run", "-c", wrong}, 2, `^$`, `^\Q` + wrong + `\E:6: .*\n.*:8: .*\n$`},
		{"run with a missing file", []string{"run", "-c", missing}, 2, `^$`, `^.*\Q` + missing + `\E.*\n$`},
		{"run without a file", []string{"run"}, 2, `^$`, `^fragwall: no configuration file given; add -c FILE\n$`},
		{"run with an argument", []string{"run", "-c", valid, "now"}, 2, `^$`, `^fragwall: .*"now".*\n$`},

		{"reload with two instances", []string{"reload", "-c", valid, "--socket", "s"}, 2, `^$`, `^fragwall: --config and --socket exclude each other; see "fragwall reload --help"\n$`},

		{"interval without watch", []string{"status", "--interval", "2s"}, 2, `^$`, `^fragwall: --interval needs --watch; add --watch\n$`},
		{"interval that is too short", []string{"status", "--watch", "--interval", "1ms"}, 2, `^$`, `^fragwall: --interval: 1ms is too short; want 100ms or more\n$`},

		{"demo with an argument", []string{"demo", "now"}, 2, `^$`, `^fragwall: .*"now".*\n$`},

		{"version", []string{"version"}, 0, `^fragwall \d+\.\d+\.\d+\ngo go\d.*\ngvisor .+\n$`, `^$`},
		{"version with an argument", []string{"version", "now"}, 2, `^$`, `^fragwall: .*"now".*\n$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := execute(test.arguments, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !regexp.MustCompile(test.stdout).MatchString(stdout.String()) {
				t.Errorf("stdout is\n%swant %s", stdout.String(), test.stdout)
			}
			if !regexp.MustCompile(test.stderr).MatchString(stderr.String()) {
				t.Errorf("stderr is\n%swant %s", stderr.String(), test.stderr)
			}
		})
	}
}
