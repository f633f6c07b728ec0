package rules_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fragwall/rules"
)

// shapes are texts of about n bytes, of kinds that cost an unbounded decoder more than
// their size suggests.
var shapes = map[string]func(n int) string{
	"dotted header":       func(n int) string { return "[a" + strings.Repeat(".a", n/2) + "]\n" },
	"dotted array header": func(n int) string { return "[[a" + strings.Repeat(".a", n/2) + "]]\n" },
	"quoted header":       func(n int) string { return "[a" + strings.Repeat(`."\u0061"`, n/9) + "]\n" },
	"dotted key":          func(n int) string { return "a" + strings.Repeat(".a", n/2) + " = 1\n" },
	"dotted keys": func(n int) string {
		return numbered(n, func(i int) string { return fmt.Sprintf("a.b.c.d.e.f.g.h%d = 1\n", i) })
	},
	"dotted key of a rule": func(n int) string { return "[[rule]]\na" + strings.Repeat(".a", n/2) + " = 1\n" },
	"inline tables":        func(n int) string { return "a = " + strings.Repeat("{a=", n/4) + "1" + strings.Repeat("}", n/4) + "\n" },
	"dotted inline tables": func(n int) string {
		return "a = " + strings.Repeat("{a.b.c=", n/8) + "1" + strings.Repeat("}", n/8) + "\n"
	},
	"brackets":            func(n int) string { return strings.Repeat("[", n) },
	"nested lists":        func(n int) string { return "a = " + strings.Repeat("[", n/2) + strings.Repeat("]", n/2) + "\n" },
	"braces":              func(n int) string { return "a = " + strings.Repeat("{", n) },
	"mixed nesting":       func(n int) string { return "a = " + strings.Repeat("[{a=", n) },
	"empty lists":         func(n int) string { return "a = [" + strings.Repeat("[],", n/3) + "]\n" },
	"empty inline tables": func(n int) string { return "a = [" + strings.Repeat("{},", n/3) + "]\n" },
	"inline keys": func(n int) string {
		return "a = {" + numbered(n, func(i int) string { return fmt.Sprintf("a%d=1,", i) }) + "b=1}\n"
	},
	"numbers":           func(n int) string { return "a = [" + strings.Repeat("1,", n/2) + "]\n" },
	"numbers of a rule": func(n int) string { return "[[rule]]\na = [" + strings.Repeat("1,", n/2) + "]\n" },
	"keys":              func(n int) string { return numbered(n, func(i int) string { return fmt.Sprintf("a%d=1\n", i) }) },
	"keys of a rule": func(n int) string {
		return "[[rule]]\n" + numbered(n, func(i int) string { return fmt.Sprintf("a%d=1\n", i) })
	},
	"keys below a long one": func(n int) string {
		return "[" + strings.Repeat("a", n/2) + "]\n" + numbered(n/2, func(i int) string { return fmt.Sprintf("a%d=1\n", i) })
	},
	"keys below the longest": func(n int) string {
		return "[" + strings.Repeat("a", rules.MaxKey-10) + "]\n" + numbered(n, func(i int) string { return fmt.Sprintf("a%d=1\n", i) })
	},
	"keys below the deepest": func(n int) string {
		return "[a" + strings.Repeat(".a", rules.MaxParts-3) + "]\n" + numbered(n, func(i int) string { return fmt.Sprintf("a%d.b=1\n", i) })
	},
	"tables":           func(n int) string { return numbered(n, func(i int) string { return fmt.Sprintf("[a%d]\n", i) }) },
	"arrays of tables": func(n int) string { return strings.Repeat("[[a]]\n", n/6) },
	"nested arrays":    func(n int) string { return strings.Repeat("[[a.b.c.d.e.f]]\n", n/16) },
	"arrays in arrays": func(n int) string { return strings.Repeat("[[a]]\n[[a.b]]\n[[a.b.c]]\n", n/24) },
	"rules":            func(n int) string { return strings.Repeat("[[rule]]\n", n/9) },
	"runs of rules": func(n int) string {
		return numbered(n, func(i int) string { return fmt.Sprintf("[[rule]]\n[a%d]\n", i) })
	},
	"tables of rules": func(n int) string { return strings.Repeat("[[rule]]\n[rule.a]\n", n/18) },
	"a string":        func(n int) string { return "a = \"" + strings.Repeat("a", n) + "\"\n" },
	"a long string":   func(n int) string { return "a = \"\"\"" + strings.Repeat("\\ ", n/2) + "\"\"\"\n" },
	"an open string":  func(n int) string { return "a = '''" + strings.Repeat("a\n", n/2) },
	"line ends":       func(n int) string { return strings.Repeat("\n", n) },
	"comments":        func(n int) string { return strings.Repeat("#\n", n/2) },
	"a comment":       func(n int) string { return "#" + strings.Repeat("#", n) },
	"a number":        func(n int) string { return "a = " + strings.Repeat("1", n) + "\n" },
	"a fraction":      func(n int) string { return "a = 1" + strings.Repeat(".1", n/2) + "\n" },
	"a word":          func(n int) string { return strings.Repeat("a", n) },
	"dots":            func(n int) string { return strings.Repeat(".", n) },
	"equals signs":    func(n int) string { return strings.Repeat("=", n) },
	"quotes":          func(n int) string { return strings.Repeat("\"", n) },
	"quoted keys":     func(n int) string { return numbered(n, func(i int) string { return fmt.Sprintf("\"\\t%d\"=1\n", i) }) },
	"unknown sets": func(n int) string {
		return numbered(n/2, func(i int) string { return fmt.Sprintf("[sets]\ns%d = \"::\"\n"[min(i, 1)*7:], i) }) +
			"[[rule]]\nname = \"a\"\naction = \"drop\"\nsrc = [" + numbered(n/2, func(i int) string { return fmt.Sprintf("\"@u%d\",", i) }) + "]\n"
	},
	"a name twice": func(n int) string { return strings.Repeat("[[rule]]\nname=\"a\"\naction=\"drop\"\n", n/32) },
}

// numbered joins texts with increasing numbers, up to n bytes.
func numbered(n int, text func(i int) string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(text(i))
	}
	return b.String()
}

// allocated returns the number of bytes allocated while reading a text.
func allocated(text string) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = rules.Parse("x.toml", []byte(text))
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestMemory checks that the memory for a text of any shape grows linearly, and stays
// below a multiple of its size.
func TestMemory(t *testing.T) {
	const small, factor, spare = 16 << 10, 800, 1 << 20
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			text, larger := shape(small), shape(8*small)
			if got, most := allocated(text), uint64(factor*len(text)+spare); got > most {
				t.Errorf("%d bytes take %d, more than %d", len(text), got, most)
			}
			if got, most := allocated(larger), uint64(factor*len(larger)+spare); got > most {
				t.Errorf("%d bytes take %d, more than %d", len(larger), got, most)
			}
		})
	}
}

// TestMemoryRandom does the same for combinations of shapes.
func TestMemoryRandom(t *testing.T) {
	names := make([]string, 0, len(shapes))
	for name := range shapes {
		names = append(names, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "parts") {
			shape := shapes[rapid.SampledFrom(names).Draw(t, "shape")]
			text.WriteString(shape(rapid.IntRange(1, 8<<10).Draw(t, "bytes")))
		}
		if got, most := allocated(text.String()), uint64(800*text.Len()+1<<20); got > most {
			t.Errorf("%d bytes take %d, more than %d", text.Len(), got, most)
		}
	})
}

// TestBounds has texts at each bound, and one beyond it.
func TestBounds(t *testing.T) {
	const rule = "[[rule]]\nname = \"%d\"\naction = \"drop\"\n"
	ports := "protocol = \"udp\"\ndst_port = [\n" + strings.Repeat("1,\n", rules.MaxInRule-10)
	addresses := minimal + "[sets]\na = [" + strings.Repeat("\"::\",", rules.MaxOutside-20)
	for name, tt := range map[string]struct{ within, beyond, mistake string }{
		"size": {
			minimal, minimal + strings.Repeat("\n", rules.MaxText-len(minimal)) + "#",
			"x.toml:67108830: the file has more than 67108864 bytes; want at most that many: put large sets into files",
		},
		"rules": {
			minimal + manyRules(rules.MaxRules, rule), minimal + manyRules(rules.MaxRules+1, rule),
			"x.toml:786437: more than 262144 rules; want at most that many",
		},
		"values of a rule": {
			minimal + fmt.Sprintf(rule, 1) + ports + "]\n", minimal + fmt.Sprintf(rule, 1) + ports + strings.Repeat("1,\n", 20) + "]\n",
			"x.toml:65541: more than 65536 keys and values in one rule; want at most that many: put a long list into a set with a file",
		},
		"values outside": {
			addresses + "]\n" + manyRules(1000, rule), addresses + strings.Repeat("\n\"::\",", 20) + "]\n",
			"x.toml:21: more than 65536 keys and values outside of [[rule]]; want at most that many: put a long set into a file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rules.Parse("x.toml", []byte(tt.within)); err != nil {
				t.Errorf("%.300v", err)
			}
			_, err := rules.Parse("x.toml", []byte(tt.beyond))
			if err == nil || err.Error() != tt.mistake {
				t.Errorf("%.300v, want %s", err, tt.mistake)
			}
		})
	}
}

func manyRules(n int, format string) string {
	return repeated(n, func(i int) string { return fmt.Sprintf(format, i) })
}
