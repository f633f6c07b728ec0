package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var fenced = regexp.MustCompile("(?s)```(toml|console)\n(.*?)```")

// TestRulesDocument checks every file in docs/rules.md, without a note on its
// rules, and runs the commands that it shows.
func TestRulesDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	var commands []string
	files := 0
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[1] == "console":
			commands = append(commands, m[2])
			continue
		case strings.HasPrefix(m[2], "[[expect]]"):
			writeFile(t, "expect.toml", m[2])
			continue
		}
		if files++; files == 1 {
			writeFile(t, "fw.toml", m[2])
		}
		writeFile(t, "x.toml", m[2])
		if stdout, stderr, code := runCommand(t, "check", "-c", "x.toml"); code != 0 || strings.Contains(stderr, "never decides") {
			t.Errorf("exit %d: %s%s\n%s", code, stdout, stderr, m[2])
		}
	}
	for _, c := range commands {
		command, want, _ := strings.Cut(strings.TrimPrefix(c, "$ fragwall "), "\n")
		if stdout, stderr, code := runCommand(t, strings.Fields(command)...); stdout+stderr != want {
			t.Errorf("%s: exit %d\n%s%s\nwant\n%s", command, code, stdout, stderr, want)
		}
	}
	if files != 4 || len(commands) != 2 {
		t.Errorf("%d files, %d commands", files, len(commands))
	}
}

// TestReadme checks the file in README.md.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	files := 0
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		if m[1] != "toml" {
			continue
		}
		files++
		writeFile(t, "fragwall.toml", m[2])
		if stdout, stderr, code := runCommand(t, "check", "-c", "fragwall.toml"); code != 0 || stderr != "" {
			t.Errorf("exit %d: %s%s", code, stdout, stderr)
		}
	}
	if files != 1 {
		t.Errorf("%d files", files)
	}
}
