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

// TestCommands checks that every command in the documents is run somewhere, or that commands.toml
// gives the reason why not:
//
//   - make: .ci/run makes the target, directly or through another target.
//   - go test: tests match the command. CI runs all tests.
//   - fragwall: a test or script runs the subcommand, and gives it each of the flags.
//   - All other commands: the file that commands.toml names runs the command.
//
// A command is a line of an sh block, a line with a prompt in a console block, or a code span that
// begins with the name of a program and has arguments.
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

// registry is the content of commands.toml.
type registry struct {
	Command []*entry
}

// entry applies to commands that begin with the first word of Like and contain the other ones in
// this order. Either Run is the file that runs them, or Reason is the reason why nothing does.
type entry struct {
	Like, Run, Reason string

	words []string // of Like
	used  bool     // the entry applies to a command
}

// readRegistry reads commands.toml.
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

// check returns an error if nothing is known to run a command and commands.toml gives no reason.
func (r *registry) check(c command, where *sources) error {
	for _, e := range r.Command {
		if c.words[0] != e.words[0] || !inOrder(e.words, c.words) {
			continue
		}
		e.used = true
		if e.Run != "" && !where.file(e.Run, e.words) {
			return fmt.Errorf("commands.toml says that %s runs it, but %q is not there", e.Run, e.Like)
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
	return fmt.Errorf("commands.toml has no entry for it")
}

// inOrder reports whether others contains all words in this order.
func inOrder(words, others []string) bool {
	for _, o := range others {
		if len(words) > 0 && words[0] == o {
			words = words[1:]
		}
	}
	return len(words) == 0
}

// command is a command in a document.
type command struct {
	at    string   // file and line
	words []string // program and arguments
}

// languages lists the allowed languages of code blocks.
var languages = []string{"console", "go", "json", "mermaid", "pcap", "sh", "text", "toml", "yaml"}

// prompt matches the prompt before a command in a console block.
var prompt = regexp.MustCompile(`^[$#] `)

// commands returns the commands of a document. programs lists the names of programs in code spans.
func (d *document) commands(programs []string) (all []command, err error) {
	each(d, func(b *ast.FencedCodeBlock, line int) {
		script, language := d.block(b), string(b.Language(d.source))
		switch language {
		case "sh":
		case "console":
			script = typed(script)
		default:
			if !slices.Contains(languages, language) {
				err = fmt.Errorf("%s: the language of the code block is %q: use one of %q", position(d.name, line), language, languages)
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

// typed returns the lines of a console block that have a prompt, without it, and their continuation
// lines.
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

// position returns NAME:LINE.
func position(name string, line int) string {
	return fmt.Sprintf("%s:%d", name, line)
}

// TestTyped extracts the commands of code spans, of a console block with output, and of an sh block.
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
