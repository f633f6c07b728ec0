package doctest

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"
)

// shell returns the commands of a script: its programs without their directory, and
// without what only gives them rights or an environment.
func shell(at, script string) (all []command, err error) {
	tree, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	syntax.Walk(tree, func(n syntax.Node) bool {
		call, is := n.(*syntax.CallExpr)
		if !is || len(call.Args) == 0 {
			return true
		}
		var words []string
		for _, w := range call.Args {
			words = append(words, literal(w))
		}
		if words[0] == "sudo" {
			words = words[1:]
		}
		if len(words) > 0 {
			words[0] = path.Base(words[0])
			all = append(all, command{at: at, words: words})
		}
		return true
	})
	return all, nil
}

// literal returns a word without its quotes. What is expanded has no text.
func literal(w *syntax.Word) string {
	var b strings.Builder
	syntax.Walk(w, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Lit:
			b.WriteString(n.Value)
		case *syntax.SglQuoted:
			b.WriteString(n.Value)
		}
		return true
	})
	return b.String()
}

// sources is where commands are run: the Go code of tests, scripts, and the Makefile.
type sources struct {
	texts     map[string]string      // by path
	functions map[string][]*function // by directory
	targets   map[string][]string    // by target of the Makefile: the targets that it makes
	ci        []string               // the targets that .ci/run makes
}

// function is a declaration in a Go file, not always that of a function.
type function struct {
	name    string
	file    string
	strings []string // the words of the strings in it
	calls   []string // the functions of its package that it calls
}

var (
	rule    = regexp.MustCompile(`^([a-z][a-z0-9 -]*):([^=].*)?$`)
	submake = regexp.MustCompile(`^\t@?\$\(MAKE\) ([a-z0-9-]+)`)
)

func readSources(t *testing.T) *sources {
	t.Helper()
	s := &sources{texts: map[string]string{}, functions: map[string][]*function{}, targets: map[string][]string{}}
	for _, name := range files(t) {
		switch {
		case strings.HasSuffix(name, ".go"):
			s.readGo(t, name)
		case path.Ext(name) == ".sh", name == "Makefile", name == ".ci/run", path.Ext(name) == ".yaml":
			s.texts[name] = strings.ReplaceAll(string(contents(t, name)), "\\\n", " ")
		}
	}
	var current []string
	for line := range strings.Lines(s.texts["Makefile"]) {
		if m := rule.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			current = strings.Fields(m[1])
			prerequisites, _, _ := strings.Cut(m[2], "##")
			for _, target := range current {
				s.targets[target] = append(s.targets[target], strings.Fields(prerequisites)...)
			}
		}
		if m := submake.FindStringSubmatch(line); m != nil {
			for _, target := range current {
				s.targets[target] = append(s.targets[target], m[1])
			}
		}
	}
	commands, err := shell(".ci/run", s.texts[".ci/run"])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if c.words[0] == "make" {
			s.ci = append(s.ci, c.words[1])
		}
	}
	for i := 0; i < len(s.ci); i++ {
		for _, target := range s.targets[s.ci[i]] {
			if !slices.Contains(s.ci, target) {
				s.ci = append(s.ci, target)
			}
		}
	}
	return s
}

// readGo reads the declarations of a file.
func (s *sources) readGo(t *testing.T, name string) {
	t.Helper()
	f, err := parser.ParseFile(gotoken.NewFileSet(), name, contents(t, name), parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		declared := &function{file: name}
		if f, is := d.(*ast.FuncDecl); is && f.Recv == nil {
			declared.name = f.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == gotoken.STRING {
					declared.strings = append(declared.strings, strings.Fields(text)...)
				}
			case *ast.CallExpr:
				if f, is := n.Fun.(*ast.Ident); is {
					declared.calls = append(declared.calls, f.Name)
				}
			}
			return true
		})
		s.functions[path.Dir(name)] = append(s.functions[path.Dir(name)], declared)
	}
}

// runs returns whether a function, with the functions of tests that it calls, has all
// words.
func (s *sources) runs(f *function, words []string) bool {
	of := slices.Clip(f.strings)
	for _, other := range s.functions[path.Dir(f.file)] {
		if strings.HasSuffix(other.file, "_test.go") && slices.Contains(f.calls, other.name) {
			of = append(of, other.strings...)
		}
	}
	return hasAll(of, words)
}

// file returns whether a function or a line of a file has all words.
func (s *sources) file(name string, words []string) bool {
	for _, f := range s.functions[path.Dir(name)] {
		if f.file == name && s.runs(f, words) {
			return true
		}
	}
	for line := range strings.Lines(s.texts[name]) {
		if hasAll(strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n/\"'$();`[],", r) }), words) {
			return true
		}
	}
	return false
}

func hasAll(of, words []string) bool {
	for _, w := range words {
		if !slices.Contains(of, w) {
			return false
		}
	}
	return true
}

// makes returns an error if .ci/run makes none of the targets.
func (s *sources) makes(words []string) error {
	for _, w := range words {
		if strings.Contains(w, "=") {
			continue
		}
		if _, exists := s.targets[w]; !exists {
			return fmt.Errorf("the Makefile has no target %s", w)
		}
		if !slices.Contains(s.ci, w) {
			return fmt.Errorf(".ci/run does not make %s", w)
		}
	}
	return nil
}

// goes returns an error if a "go test" names no test, or if it is not one: CI runs
// all tests.
func (s *sources) goes(words []string) error {
	if len(words) == 0 || words[0] != "test" {
		return fmt.Errorf("commands.toml has no entry like it")
	}
	var packages []string
	pattern := ""
	for i, w := range words {
		switch {
		case strings.HasPrefix(w, "./"):
			packages = append(packages, path.Clean(w))
		case w == "-bench", w == "-fuzz":
			return fmt.Errorf("CI does not run benchmarks: commands.toml has no entry like it")
		case w == "-run" && i+1 < len(words):
			pattern, _, _ = strings.Cut(words[i+1], "/")
		}
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	for _, p := range packages {
		tree, all := strings.CutSuffix(p, "/...")
		for dir, functions := range s.functions {
			if dir != tree && (!all || tree != "..." && !strings.HasPrefix(dir, tree+"/")) {
				continue
			}
			if slices.ContainsFunc(functions, func(f *function) bool { return isTest(f) && re.MatchString(f.name) }) {
				return nil
			}
		}
	}
	return fmt.Errorf("no test of %q is like %q", packages, pattern)
}

// calls returns an error if there is a flag in a command of fragwall that no test and
// no script gives its subcommand.
func (s *sources) calls(words []string) error {
	if err := s.called(words[0]); err != nil {
		return err
	}
	for _, w := range words[1:] {
		flag, _, _ := strings.Cut(w, "=")
		if len(flag) < 2 || flag[0] != '-' {
			continue
		}
		if err := s.called(words[0], flag); err != nil {
			return err
		}
	}
	return nil
}

// isTest returns whether "go test" runs a function.
func isTest(f *function) bool {
	return strings.HasSuffix(f.file, "_test.go") && (strings.HasPrefix(f.name, "Test") || strings.HasPrefix(f.name, "Example") || strings.HasPrefix(f.name, "Fuzz"))
}

// called returns an error if there is no test and no line of a script that has all
// words.
func (s *sources) called(words ...string) error {
	for dir, functions := range s.functions {
		if dir != "docs/doctest" && slices.ContainsFunc(functions, func(f *function) bool { return isTest(f) && s.runs(f, words) }) {
			return nil
		}
	}
	for name := range s.texts {
		if path.Ext(name) == ".sh" && s.file(name, append([]string{"fragwall"}, words...)) {
			return nil
		}
	}
	return fmt.Errorf("no test has %q", words)
}
