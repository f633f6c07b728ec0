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

// TestSpelling checks the words of all documents, except code, against hunspell's dictionary of
// British English and words.txt.
func TestSpelling(t *testing.T) {
	requireHunspell(t)
	lines := map[string]string{} // by word: position of its first occurrence
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

// TestWords checks that the word list is sorted, so that two changes to it seldom conflict.
func TestWords(t *testing.T) {
	list := strings.Fields(string(contents(t, wordList)))
	if sorted := slices.Compact(slices.Sorted(slices.Values(list))); !slices.Equal(list, sorted) {
		t.Errorf("the word list is not sorted: run LC_ALL=C sort -u -o %[1]s %[1]s", wordList)
	}
}

// TestMisspelt checks a text with words that neither the dictionary nor the word list contains.
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

// requireHunspell skips the test if hunspell or its dictionary is missing. In CI the test fails
// instead.
func requireHunspell(t *testing.T) {
	t.Helper()
	if err := exec.Command("hunspell", "-l", "-d", "en_GB").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// misspelt returns the words that are neither in hunspell's dictionary nor in the word list, sorted.
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
	name  = regexp.MustCompile(`\S*[./][\pL\pN_]\S*`) // file or host name
	token = regexp.MustCompile(`[\pL\pN_]{3,}(?:['’]\pL+)?`)
)

// words returns the words of a text, without a final 's. It leaves out words of one or two letters
// and identifiers: words with a digit, an underscore, or a capital after the first letter.
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
