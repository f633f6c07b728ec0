package doctest

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/yuin/goldmark/ast"
)

// TestCommands has every command of every document be run somewhere, or be in
// commands.toml with the reason why it is not:
//
//   - a target of make: by .ci/run, on its own or below another target;
//   - go test: the tests that it names exist, and CI runs them;
//   - fragwall: tests give this subcommand each of the flags;
//   - anything else: where commands.toml says so.
//
// Commands are the lines of blocks of sh, those lines of blocks of console that
// have a prompt, and code within a line that begins with the name of a program and
// goes on.
func TestCommands(t *testing.T) {
	r := readRegistry(t)
	where := readSources(t)
	for _, d := range documents(t) {
		commands, err := d.commands(r.programs())
		if err != nil {
			t.Error(err)
		}
		for _, c := range commands {
			if err := r.check(c, where); err != nil {
				t.Errorf("%s: %q: %v", c.at, strings.Join(c.words, " "), err)
			}
		}
	}
	for _, e := range r.Command {
		if !e.used {
			t.Errorf("commands.toml: no document has a command like %q: remove the entry", e.Like)
		}
	}
	if t.Failed() {
		t.Log("docs/doctest/commands.toml explains what to do")
	}
}

// registry is commands.toml.
type registry struct {
	Command []*entry
}

// entry says where the commands are run that have the words of Like in this order
// and begin with the first of them, or why none is run.
type entry struct {
	Like, Run, Reason string

	words []string
	used  bool
}

func readRegistry(t *testing.T) *registry {
	t.Helper()
	var r registry
	meta, err := toml.Decode(string(contents(t, "docs/doctest/commands.toml")), &r)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range meta.Undecoded() {
		t.Errorf("commands.toml: unknown key %s", key)
	}
	for _, e := range r.Command {
		if e.words = strings.Fields(e.Like); len(e.words) == 0 || (e.Run == "") == (e.Reason == "") {
			t.Fatalf("commands.toml: %q needs words, and either run or reason", e.Like)
		}
	}
	return &r
}

// programs returns the names that a command may begin with.
func (r *registry) programs() []string {
	all := []string{"fragwall", "go", "make"}
	for _, e := range r.Command {
		all = append(all, e.words[0])
	}
	return all
}

// check returns why a command cannot be said to be run.
func (r *registry) check(c command, where *sources) error {
	for _, e := range r.Command {
		if c.words[0] != e.words[0] || !inOrder(e.words, c.words) {
			continue
		}
		e.used = true
		if e.Run != "" && !where.file(e.Run, e.words) {
			return fmt.Errorf("commands.toml has it run by %s, where %q is not", e.Run, e.Like)
		}
		return nil
	}
	switch c.words[0] {
	case "make":
		return where.makes(c.words[1:])
	case "go":
		return where.goes(c.words[1:])
	case "fragwall":
		return where.calls(c.words[1:])
	}
	return fmt.Errorf("commands.toml has no entry like it")
}

// inOrder returns whether all words are among others, in their order.
func inOrder(words, others []string) bool {
	for _, o := range others {
		if len(words) > 0 && words[0] == o {
			words = words[1:]
		}
	}
	return len(words) == 0
}

// command is one of a document: a program with its arguments.
type command struct {
	at    string // file and line
	words []string
}

// languages are what a block of code may say that it is.
var languages = []string{"console", "go", "json", "mermaid", "pcap", "sh", "text", "toml", "yaml"}

// prompt begins a line of a console that a user types.
var prompt = regexp.MustCompile(`^[$#] `)

// commands returns the commands of a document.
func (d *document) commands(programs []string) (all []command, err error) {
	each(d, func(b *ast.FencedCodeBlock, line int) {
		script, language := d.block(b), string(b.Language(d.source))
		switch language {
		case "sh":
		case "console":
			script = typed(script)
		default:
			if !slices.Contains(languages, language) {
				err = fmt.Errorf("%s: the block's language is %q: give it one of %q", position(d.name, line), language, languages)
			}
			return
		}
		found, e := shell(position(d.name, line), script)
		if e != nil {
			err = e
		}
		all = append(all, found...)
	})
	each(d, func(s *ast.CodeSpan, line int) {
		script := strings.ReplaceAll(d.written(s), "\n", " ")
		first, rest, _ := strings.Cut(script, " ")
		if rest == "" || !slices.Contains(programs, path.Base(first)) {
			return
		}
		found, e := shell(position(d.name, line), script)
		if e != nil {
			err = e
		}
		all = append(all, found...)
	})
	return all, err
}

// typed returns the lines that follow a prompt, and those that continue them.
func typed(console string) string {
	var b strings.Builder
	continued := false
	for line := range strings.Lines(console) {
		if continued || prompt.MatchString(line) {
			if !continued {
				line = line[2:]
			}
			b.WriteString(line)
			continued = strings.HasSuffix(strings.TrimSpace(line), `\`)
		}
	}
	return b.String()
}

func position(name string, line int) string {
	return fmt.Sprintf("%s:%d", name, line)
}

// TestTyped has what a console shows and what a block holds.
func TestTyped(t *testing.T) {
	d := parse("x.md", []byte("Run `make\ntest` or `make`.\n\n```console\n# ip link\nlo: up\n$ sudo bin/fragwall check \\\n    -c 'a b' | grep x\n```\n\n```sh\nA=1 go test ./... # all\n```\n"))
	got, err := d.commands([]string{"make"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got {
		lines = append(lines, strings.Join(c.words, "|"))
	}
	want := []string{"ip|link", "fragwall|check|-c|a b", "grep|x", "go|test|./...", "make|test"}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	if _, err := parse("x.md", []byte("```\ntext\n```\n")).commands(nil); err == nil {
		t.Error("a block without a language is accepted")
	}
}
