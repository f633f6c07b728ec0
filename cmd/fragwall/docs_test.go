package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fragwall/packet/verdict"
)

var fenced = regexp.MustCompile("(?s)```(toml|console)\n(.*?)```")

// TestRulesDocument checks that every configuration in docs/rules.md is valid and causes no
// note about its rules, and that its commands print what it shows.
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
		t.Errorf("docs/rules.md: found %d files and %d commands", files, len(commands))
	}
}

// TestReadme checks that the configurations in README.md are valid.
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
	if files != 2 {
		t.Errorf("README.md: found %d files", files)
	}
}

var (
	shown   = regexp.MustCompile("(?s)```(console|sh)\n(.*?)```")
	command = regexp.MustCompile(`(?m)^([$#] )?(?:sudo )?(?:bin/)?fragwall +([^|>&#\n]*?)(?: \d?[|>&#].*)?$`)
)

// TestDocumentedCommands checks that the commands and flags that the documents show exist.
func TestDocumentedCommands(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	found := map[string]int{}
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range shown.FindAllStringSubmatch(string(text), -1) {
			for _, m := range command.FindAllStringSubmatch(block[2], -1) {
				if block[1] == "console" && m[1] == "" { // output of a command
					continue
				}
				found[filepath.Base(file)]++
				if err := parses(strings.Fields(m[2])); err != nil {
					t.Errorf("%s: fragwall %s: %v", filepath.Base(file), m[2], err)
				}
			}
		}
	}
	for _, file := range []string{"README.md", "rules.md", "sidecar.md", "troubleshooting.md"} {
		if found[file] == 0 {
			t.Errorf("%s: no fragwall command found", file)
		}
	}
}

// TestTroubleshootingDocument checks that the configurations in docs/troubleshooting.md are
// valid, that it shows every diagnostic command and only existing reasons, and that check
// prints what it shows: the policy fails the expectation, and meets it after the change in the
// text.
func TestTroubleshootingDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, tool := range []string{"status", "capture", "explain --live", "flows", "waiting", "check", "reload"} {
		if !strings.Contains(text, "\n$ fragwall "+tool+" ") {
			t.Errorf("no example of %s", tool)
		}
	}
	for _, reason := range reasonNamed.FindAllStringSubmatch(text, -1) {
		if !slices.ContainsFunc(reasons(), func(r verdict.Reason) bool { return r.String() == reason[1] }) {
			t.Errorf("reason %s does not exist", reason[1])
		}
	}
	t.Chdir(t.TempDir())
	files := fenced.FindAllStringSubmatch(text, -1)
	files = slices.DeleteFunc(files, func(m []string) bool { return m[1] != "toml" })
	if len(files) != 2 {
		t.Fatalf("found %d TOML blocks, want 2", len(files))
	}
	writeFile(t, "expect.toml", files[1][2])
	const command = "$ fragwall check -c fw.toml --expect expect.toml\n"
	_, rest, _ := strings.Cut(text, command)
	unmet, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, command)
	met, _, _ := strings.Cut(rest, "$")
	for config, want := range map[string]string{
		files[0][2]: unmet, strings.Replace(files[0][2], "dst_port = 53\n", "dst_port = [53, 853]\n", 1): met,
	} {
		writeFile(t, "fw.toml", config)
		if stdout, stderr, code := runCommand(t, "check", "-c", "fw.toml", "--expect", "expect.toml"); stdout+stderr != want || want == "" {
			t.Errorf("exit %d\n%s%s\nwant\n%s", code, stdout, stderr, want)
		}
	}
}

var reasonNamed = regexp.MustCompile("`((?:fragment|policy|flow|exceeds|egress)_[a-z_]+)`")

func reasons() (all []verdict.Reason) {
	for r := verdict.Passed + 1; int(r) < verdict.Reasons; r++ {
		all = append(all, r)
	}
	return all
}

// TestParses checks that parses rejects unknown commands, unknown flags and wrong arguments.
func TestParses(t *testing.T) {
	for line, ok := range map[string]bool{
		"check -c x.toml": true, "chek -c x.toml": false, "check -c x.toml --nothing": false, "check x.toml": false, "status -c x.toml --socket s": false,
	} {
		if err := parses(strings.Fields(line)); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// parses returns the error of a command line, without running it.
func parses(words []string) error {
	for i, w := range words {
		words[i] = strings.Trim(w, `'"`)
	}
	c, rest, err := newRootCommand().Find(words)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}
