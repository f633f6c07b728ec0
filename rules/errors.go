package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors is the mistakes of a file, by line: the first 20 of each file, and how
// many more there are. It holds at least one.
type Errors struct {
	File     string
	Mistakes []Mistake
	causes   []error
}

// Mistake is one thing wrong with a file.
type Mistake struct {
	File string // that a set was read from; "" for the configuration itself
	Line int    // from 1
	Text string // what is wrong, and what would be right; one line
}

// Error returns the mistakes one a line, as FILE:LINE: TEXT.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Mistakes))
	for i, m := range e.Mistakes {
		lines[i] = fmt.Sprintf("%s:%d: %s", cmp.Or(m.File, e.File), m.Line, m.Text)
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns what the system said of files that could not be read.
func (e *Errors) Unwrap() []error { return e.causes }

// maxMistakes is how many mistakes of each file are told, the first ones.
const maxMistakes = 20

// report gathers what there is to say about a file while it is read.
type report struct {
	file      string
	files     []string          // that it names
	sets      map[string]uint64 // digests of the sets, by name
	mistakes  map[string]*tally // by file; "" for the configuration itself
	causes    []error           // see [Errors.Unwrap]
	notes     []Note
	reading   reading  // of the files that it names
	addresses int      // in its sets and rules
	syntax    *Mistake // the only mistake of a file that is not TOML
}

// tally is the mistakes of a file: the first ones, by line, those of one line
// in the order in which they were found.
type tally struct {
	first []finding
	more  int // behind them
	next  int // line of the first of those
}

// finding is a mistake whose text is yet to be made, as few of many are.
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

// told returns the mistakes of a file as they are told.
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

// mistake reports a mistake in the configuration. Arguments that are lazy say
// what they do only if the mistake is told.
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

// only reports what makes a text no TOML, so that all else that was found in
// it means nothing.
func (r *report) only(m *Mistake) {
	if r.syntax == nil {
		r.syntax = m
	}
}

func (r *report) note(line int, format string, args ...any) {
	r.notes = append(r.notes, Note{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// takes counts addresses, and reports whether there may be as many.
func (r *report) takes(addresses int) bool {
	r.addresses += addresses
	return r.addresses <= maxAddresses
}

// err returns the mistakes by line, those of other files by file behind them,
// or nil if there are none.
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

// lazy is a text that is made when it is told.
type lazy func() string

func (l lazy) String() string { return l() }

// Error makes a lazy text an error.
func (l lazy) Error() string { return l() }

// sortedNotes returns the notes by line.
func (r *report) sortedNotes() []Note {
	slices.SortStableFunc(r.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	return r.notes
}

// quoteLimit is how much of a user's text a message repeats, in bytes.
const quoteLimit = 80

// quote returns a user's text in double quotes, on one line and not too long.
func quote(s string) string {
	if len(s) > quoteLimit {
		return fmt.Sprintf("%q", strings.ToValidUTF8(s[:quoteLimit], "")+"…")
	}
	return fmt.Sprintf("%q", s)
}

// either returns the choices as a sentence has them: "a", "b" or "c".
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
