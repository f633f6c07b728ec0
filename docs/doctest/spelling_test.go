package doctest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// TestSpelling looks up the words of all documents, outside code, in hunspell's
// dictionary of British English and in words.txt.
func TestSpelling(t *testing.T) {
	requireHunspell(t)
	lines := map[string]string{} // by word: where it was seen first
	for _, d := range documents(t) {
		each(d, func(n *ast.Text, line int) {
			if n.Parent().Kind() == ast.KindCodeSpan {
				return
			}
			for _, w := range words(string(n.Segment.Value(d.source))) {
				if _, seen := lines[w]; !seen {
					lines[w] = position(d.name, line)
				}
			}
		})
	}
	unknown := misspelt(t, lines)
	for _, w := range unknown {
		t.Errorf("%s: %s", lines[w], w)
	}
	if len(unknown) > 0 {
		t.Error("correct these words, put them in `code`, or add them to docs/doctest/words.txt")
	}
}

// TestWords has the word list sorted, so that two changes of it seldom conflict.
func TestWords(t *testing.T) {
	list := strings.Fields(string(contents(t, wordList)))
	if sorted := slices.Compact(slices.Sorted(slices.Values(list))); !slices.Equal(list, sorted) {
		t.Errorf("sort it: LC_ALL=C sort -u -o %[1]s %[1]s", wordList)
	}
}

// TestMisspelt has words that are in neither.
func TestMisspelt(t *testing.T) {
	requireHunspell(t)
	found := map[string]string{}
	for _, w := range words("The fragmnet's behaviour and behavior of IPv4, MTUs, udp_frame, docs/rulez.md and fragwall's netfilter-like dont") {
		found[w] = ""
	}
	if got, want := misspelt(t, found), []string{"behavior", "dont", "fragmnet"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

const wordList = "docs/doctest/words.txt"

// requireHunspell skips the test where hunspell or its dictionary is missing, and fails
// it in CI.
func requireHunspell(t *testing.T) {
	t.Helper()
	if err := exec.Command("hunspell", "-l", "-d", "en_GB").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// misspelt returns those of the words that hunspell does not know.
func misspelt(t *testing.T, words map[string]string) []string {
	t.Helper()
	var in strings.Builder
	for w := range words {
		in.WriteString(w + "\n")
	}
	c := exec.Command("hunspell", "-l", "-d", "en_GB", "-p", root+"/"+wordList)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	c.Stdin = strings.NewReader(in.String())
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var unknown []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		unknown = append(unknown, s.Text())
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

var (
	name  = regexp.MustCompile(`\S*[./][\pL\pN_]\S*`) // of a file or a host
	token = regexp.MustCompile(`[\pL\pN_]{3,}(?:['’]\pL+)?`)
)

// words returns the words of a text without the ending of the genitive. It leaves out
// names: what has a digit, an underscore, or a capital after its first letter. Words of
// one or two letters do not count.
func words(text string) []string {
	var all []string
	for _, w := range token.FindAllString(name.ReplaceAllString(text, " "), -1) {
		w = strings.TrimSuffix(strings.ReplaceAll(w, "’", "'"), "'s")
		rest := strings.TrimLeftFunc(w, unicode.IsUpper)
		if len(w)-len(rest) > 1 || strings.ContainsFunc(rest, func(r rune) bool { return r == '_' || unicode.IsDigit(r) || unicode.IsUpper(r) }) {
			continue
		}
		all = append(all, w)
	}
	return all
}
