package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors has the mistakes of a file, by line: the first 20 of each file, and the number
// of others. It has at least one.
type Errors struct {
	File     string
	Mistakes []Mistake
	causes   []error
}

// Mistake is one mistake in a file.
type Mistake struct {
	File string // the file of a set; "" for the configuration itself
	Line int    // from 1
	Text string // what is wrong, and a suggested fix; one line
}

// Error returns the mistakes, one per line, as FILE:LINE: TEXT.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Mistakes))
	for i, m := range e.Mistakes {
		lines[i] = fmt.Sprintf("%s:%d: %s", cmp.Or(m.File, e.File), m.Line, m.Text)
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the system's errors for files that could not be read.
func (e *Errors) Unwrap() []error { return e.causes }

// maxMistakes is the number of mistakes that are reported per file, the first ones.
const maxMistakes = 20

// report collects mistakes and notes while a file is read.
type report struct {
	file      string
	files     []string          // the files that it names
	sets      map[string]uint64 // digests of the sets, by name
	mistakes  map[string]*tally // by file; "" for the configuration itself
	causes    []error           // see [Errors.Unwrap]
	notes     []Note
	reading   reading  // of the files that it names
	addresses int      // in its sets and rules
	syntax    *Mistake // the only mistake of a file that is not TOML
}

// tally has the mistakes of a file: the first ones, sorted by line. Mistakes on one line
// stay in the order in which they were found.
type tally struct {
	first []finding
	more  int // the number of others
	next  int // line of the first of the others
}

// finding is a mistake whose text is made only if it is reported.
type finding struct {
	line   int
	format string
	args   []any
}

func (t *tally) add(f finding) {
	at, _ := slices.BinarySearchFunc(t.first, f.line+1, func(f finding, line int) int { return cmp.Compare(f.line, line) })
	if t.first = slices.Insert(t.first, at, f); len(t.first) <= maxMistakes {
		return
	}
	if last := t.first[maxMistakes].line; t.more == 0 || last < t.next {
		t.next = last
	}
	t.more++
	t.first = t.first[:maxMistakes]
}

// told returns the mistakes of a file that are reported.
func (t *tally) told(file string) []Mistake {
	mistakes := make([]Mistake, 0, len(t.first)+1)
	for _, f := range t.first {
		mistakes = append(mistakes, Mistake{File: file, Line: f.line, Text: fmt.Sprintf(f.format, f.args...)})
	}
	switch {
	case t.more == 1:
		mistakes = append(mistakes, Mistake{File: file, Line: t.next, Text: "1 more mistake from here on"})
	case t.more > 1:
		mistakes = append(mistakes, Mistake{File: file, Line: t.next, Text: fmt.Sprintf("%d more mistakes from here on", t.more)})
	}
	return mistakes
}

// mistake reports a mistake in the configuration. Lazy arguments are evaluated only if
// the mistake is reported.
func (r *report) mistake(line int, format string, args ...any) {
	r.elsewhere("", line, format, args...)
}

// elsewhere reports a mistake in a file that the configuration names.
func (r *report) elsewhere(file string, line int, format string, args ...any) {
	if r.mistakes == nil {
		r.mistakes = make(map[string]*tally)
	}
	if r.mistakes[file] == nil {
		r.mistakes[file] = &tally{}
	}
	r.mistakes[file].add(finding{line: line, format: format, args: args})
}

// only reports that a text is not TOML. Everything else that was found in it is then
// meaningless.
func (r *report) only(m *Mistake) {
	if r.syntax == nil {
		r.syntax = m
	}
}

func (r *report) note(line int, format string, args ...any) {
	r.notes = append(r.notes, Note{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// takes counts addresses, and reports whether they are within the limit.
func (r *report) takes(addresses int) bool {
	r.addresses += addresses
	return r.addresses <= maxAddresses
}

// err returns the mistakes, by line, first those of the configuration, then those of
// other files. It returns nil if there are none.
func (r *report) err() error {
	switch {
	case r.syntax != nil:
		return &Errors{File: r.file, Mistakes: []Mistake{*r.syntax}}
	case len(r.mistakes) == 0:
		return nil
	}
	e := &Errors{File: r.file, causes: r.causes}
	for _, file := range slices.Sorted(maps.Keys(r.mistakes)) {
		e.Mistakes = append(e.Mistakes, r.mistakes[file].told(file)...)
	}
	return e
}

// lazy is a text that is made when it is reported.
type lazy func() string

func (l lazy) String() string { return l() }

// Error makes a lazy text usable as an error.
func (l lazy) Error() string { return l() }

// sortedNotes returns the notes, sorted by line.
func (r *report) sortedNotes() []Note {
	slices.SortStableFunc(r.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return r.notes
}

// quoteLimit is the number of bytes of a user's text that a message repeats.
const quoteLimit = 80

// quote returns a user's text in double quotes, on one line, and shortened if it is long.
func quote(s string) string {
	if len(s) > quoteLimit {
		return fmt.Sprintf("%q", strings.ToValidUTF8(s[:quoteLimit], "")+"…")
	}
	return fmt.Sprintf("%q", s)
}

// either returns the choices as in a sentence: "a", "b" or "c".
func either(choices []string) string {
	var b strings.Builder
	for i, c := range choices {
		switch {
		case i == 0:
		case i == len(choices)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(quote(c))
	}
	return b.String()
}
