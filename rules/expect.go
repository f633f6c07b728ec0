package rules

import (
	"fmt"
	"strings"
	"unicode"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Expectation is a datagram and the verdict that a policy is expected to reach.
type Expectation struct {
	Line     int          // of its header, starting at 1
	Name     string       // "" if it has none
	Datagram *packet.View // that is asked about
	Verdict  verdict.Action
	// Rule is the name of the rule that is expected to decide: "" means no rule, nil
	// means any.
	Rule *string
}

// maxExpected limits the keys and values in a file of expectations.
const maxExpected = 1 << 18

var tooManyExpected = fmt.Sprintf("more than %d keys and values; want at most that many in one file of expectations", maxExpected)

// expectationKeys are the keys of [[expect]].
var expectationKeys = append([]string{"name", "verdict", "rule"}, questionKeys...)

// LoadExpectations reads a file of expectations: tables [[expect]]. If the file could be
// read, the error is an [*Errors].
func LoadExpectations(path string) ([]Expectation, error) {
	text, err := ReadWithin(path, maxText, readTimeout)
	if err != nil {
		return nil, fmt.Errorf("read expectations: %w", err)
	}
	return ParseExpectations(path, text)
}

// ParseExpectations reads the text of a file of expectations; name is the file's name,
// for messages. The error is an [*Errors].
func ParseExpectations(name, text string) ([]Expectation, error) {
	r := &report{file: name}
	expectations := r.expectations(text)
	if err := r.err(); err != nil {
		return nil, err
	}
	return expectations, nil
}

// expectations reads a text. The result is valid only if no mistake was reported.
func (r *report) expectations(text string) []Expectation {
	b := &bounds{most: maxExpected, tooMany: tooManyExpected}
	place := locate(text, 1, b)
	if b.broken() {
		r.mistake(b.line, "%s", b.mistake)
		return nil
	}
	values, syntax := read(text, 1)
	if syntax != nil {
		r.only(syntax)
		return nil
	}
	root := table{report: r, values: values, place: place}
	root.checkList("expect")
	root.checkOnly([]string{"expect"})
	tables := root.tables("expect")
	if len(tables) == 0 && len(r.mistakes) == 0 {
		r.mistake(1, "no [[expect]]; add one with the fields of a datagram and verdict = \"accept\"")
	}
	expectations := make([]Expectation, len(tables))
	for i, t := range tables {
		expectations[i] = t.expectation()
	}
	return expectations
}

// expectation reads one [[expect]].
func (t table) expectation() Expectation {
	t.checkOnly(expectationKeys)
	e := Expectation{Line: t.place.line, Name: t.field("name").line(), Datagram: t.datagram()}
	f := t.field("verdict")
	if !f.set() {
		f.fail("missing; add verdict = \"accept\", \"drop\" or \"reject\"")
	}
	e.Verdict = f.action(verdict.Drop, ruleActions)
	if f := t.field("rule"); f.set() {
		rule := f.line()
		e.Rule = &rule
	}
	return e
}

// line returns the field's string of printable characters, "" if it is not set.
func (f field) line() string {
	text := f.text("", "dns")
	if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		f.fail("%s contains an unprintable character; want letters, digits, punctuation and spaces", quote(text))
	}
	return text
}
