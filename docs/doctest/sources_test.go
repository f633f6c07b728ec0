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

// shell returns the commands of a shell script. It removes the directory of the program, a preceding
// sudo, and assignments.
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

// literal returns a word without quotes and without expansions.
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

// sources holds the files that run commands: Go files, scripts, YAML files and the Makefile.
type sources struct {
	texts     map[string]string      // content of the files other than Go files, by path
	functions map[string][]*function // by directory
	targets   map[string][]string    // by Makefile target: the targets that it makes
	ci        []string               // targets that .ci/run makes
}

// function is a top-level declaration in a Go file.
type function struct {
	name    string // empty if the declaration is not a function
	file    string
	strings []string // words in its string literals
	calls   []string // functions of its package that it calls
}

var (
	rule    = regexp.MustCompile(`^([a-z][a-z0-9 -]*):([^=].*)?$`)
	submake = regexp.MustCompile(`^\t@?\$\(MAKE\) ([a-z0-9-]+)`)
)

// readSources reads the files of the repository.
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

// runs reports whether the strings of a function, and of functions in test files that it calls,
// contain all words.
func (s *sources) runs(f *function, words []string) bool {
	of := slices.Clip(f.strings)
	for _, other := range s.functions[path.Dir(f.file)] {
		if strings.HasSuffix(other.file, "_test.go") && slices.Contains(f.calls, other.name) {
			of = append(of, other.strings...)
		}
	}
	return hasAll(of, words)
}

// file reports whether a function or a line of a file contains all words.
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

// hasAll reports whether of contains all words.
func hasAll(of, words []string) bool {
	for _, w := range words {
		if !slices.Contains(of, w) {
			return false
		}
	}
	return true
}

// makes returns an error if .ci/run does not make one of the targets. words are the arguments of
// make.
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

// goes returns an error unless words, the arguments of go, are a "go test" that matches tests. CI
// runs all tests.
func (s *sources) goes(words []string) error {
	if len(words) == 0 || words[0] != "test" {
		return fmt.Errorf("commands.toml has no entry for it")
	}
	var packages []string
	pattern := ""
	for i, w := range words {
		switch {
		case strings.HasPrefix(w, "./"):
			packages = append(packages, path.Clean(w))
		case w == "-bench", w == "-fuzz":
			return fmt.Errorf("CI does not run benchmarks, and commands.toml has no entry for it")
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
	return fmt.Errorf("no test in %q matches %q", packages, pattern)
}

// calls returns an error if no test or script gives the subcommand of fragwall each of the flags.
// words are the arguments of fragwall.
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

// isTest reports whether "go test" runs a function.
func isTest(f *function) bool {
	return strings.HasSuffix(f.file, "_test.go") && (strings.HasPrefix(f.name, "Test") || strings.HasPrefix(f.name, "Example") || strings.HasPrefix(f.name, "Fuzz"))
}

// called returns an error if no test and no line of a script contains all words.
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
	return fmt.Errorf("no test or script contains %q", words)
}
