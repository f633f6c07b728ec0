package rules_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fragwall/rules"
)

// TestDecodePieces decodes texts in which rules and other tables conflict. Decoding the pieces
// must give the same result as decoding the whole.
func TestDecodePieces(t *testing.T) {
	const rule = "[[rule]]\nname = \"a\"\n"
	for _, text := range []string{
		"", rule, rule + rule, "\ufeff" + rule, "a = 1\n" + rule + "[b]\n" + rule + "[c]\n",
		rule + "[rule.x]\ny = 1\n", rule + "[rule.name]\n", rule + "[rule.name.x]\n", rule + "[[rule.x]]\n[[rule.x]]\n" + rule,
		"rule = 1\n" + rule, "[rule]\n" + rule, rule + "[rule]\n", "rule = []\n" + rule, rule + "rule = 1\n", "[[rule.x]]\n" + rule,
		"[a]\n" + rule + "[a]\n", "[a.b]\n" + rule + "[a]\n" + rule, rule + "name = 2\n", rule + rule + "name\n" + rule + "[[\n",
		"[[ \"rule\" ]] # a comment\nx = 1\n[['rule']]\n", rule + "x = \"\"\"\n[[rule]]\n\"\"\"\n" + rule, rule + "x = '''\n[[rule]]\n''''\n" + rule,
		rule + "x = [\n[[1]],\n# ]\n[[2]]]\n" + rule, rule + "x = {a = [{b = 1}]}\nx.y = 1\n", rule + "x = \"[[rule]]\n" + rule,
		rule + "[a", rule + "[[rule]", rule + "[[rule]] x = 1\n", rule + "x = 1 [[rule]]\n", "x = [1\n" + rule, "[a]\nx = 1\n" + rule + "y = }\n[a]\n",
		rule + "x = \"\\\"\n" + rule, "\xff\xfe" + rule, rule + "x = \xff\n", "a = {\n" + rule, rule + "\r\nx = 1\r\n\r\n" + rule + "x = ,\r\n",
		strings.Repeat(rule+"x = \"0123456789012345678901234567890123456789\"\n", 5000) + "x = \n",
	} {
		comparePieces(t, text)
	}
}

// comparePieces fails unless a text decoded in pieces has the same values as a whole, or
// the same mistake.
func comparePieces(t interface {
	Helper()
	Errorf(string, ...any)
}, text string) {
	t.Helper()
	got, mistake, within := rules.DecodePieces(text)
	if !within {
		return
	}
	want, wanted := rules.DecodeWhole(text)
	show := func(m *rules.Mistake) string {
		switch {
		case m == nil:
			return "no mistake"
		case strings.Contains(m.Text, `'\n'`): // the decoder attributes the line end differently
			return m.Text
		}
		return fmt.Sprint(m.Line, ": ", m.Text)
	}
	if of := `"rule.`; mistake != nil && (strings.HasPrefix(mistake.Text, of) || wanted != nil && strings.HasPrefix(wanted.Text, of)) {
		return // the pieces report it with the other keys of the rule, after the mistakes outside rules
	}
	if show(mistake) != show(wanted) {
		t.Errorf("%.300q:\ngot  %s\nwant %s", text, show(mistake), show(wanted))
	} else if mistake == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%.300q:\ngot  %.300v\nwant %.300v", text, got, want)
	}
}

// FuzzDecodePieces compares texts decoded in pieces with the whole.
func FuzzDecodePieces(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range append(files, "testdata/reference.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) { comparePieces(t, text) })
}

// TestDecodePiecesRandom joins random parts of TOML.
func TestDecodePiecesRandom(t *testing.T) {
	atoms := []string{
		"[[rule]]\n", "[rule]\n", "[rule.a]\n", "[[rule.a]]\n", "[a]\n", "[[a]]\n", "[a.b]\n", "a = 1\n", "b = \"x\"\n", "a.b = 2\n", "rule = 3\n",
		"[", "]", "{", "}", "=", ",", ".", "\n", "\"", "'", "\"\"\"", "'''", "#", "\\", " ", "\r", "a", "rule", "1", "[[rule]]", "x = [", "x = {", "\xff", "\x00",
	}
	rapid.Check(t, func(t *rapid.T) {
		comparePieces(t, strings.Join(rapid.SliceOfN(rapid.SampledFrom(atoms), 0, 30).Draw(t, "atoms"), ""))
	})
}
