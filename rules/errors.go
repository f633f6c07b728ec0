package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Errors is every mistake of a file, by line. It holds at least one.
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

// report gathers what there is to say about a file while it is read.
type report struct {
	file     string
	files    []string // that it names
	mistakes []Mistake
	causes   []error // see [Errors.Unwrap]
	notes    []Note
}

func (r *report) mistake(line int, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{Line: line, Text: fmt.Sprintf(format, args...)})
}

func (r *report) note(line int, format string, args ...any) {
	r.notes = append(r.notes, Note{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// elsewhere reports a mistake in a file that the configuration names.
func (r *report) elsewhere(file string, line int, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{File: file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// err returns the mistakes by line, those of other files by file behind them,
// or nil if there are none. Those of one line stay in the order in which they
// were found.
func (r *report) err() error {
	if len(r.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(r.mistakes, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return &Errors{File: r.file, Mistakes: r.mistakes, causes: r.causes}
}

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
