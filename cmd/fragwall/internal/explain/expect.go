package explain

import (
	"fmt"

	"fragwall/rules"
)

// Result is an expectation and what the policy decides.
type Result struct {
	ExpectFile string `json:"expect_file"`
	ExpectLine int    `json:"expect_line"` // of its header
	Name       string `json:"name,omitempty"`
	Met        bool   `json:"met"`
	Expected   struct {
		Verdict string  `json:"verdict"`
		Rule    *string `json:"rule,omitempty"` // "": that no rule decides
	} `json:"expected"`
	Answer
}

// Expect compares an expectation of a file with what the policy decides.
func (p *Policy) Expect(file string, e *rules.Expectation) Result {
	r := Result{ExpectFile: file, ExpectLine: e.Line, Name: e.Name, Answer: p.Ask(e.Datagram)}
	r.Expected.Verdict, r.Expected.Rule = e.Verdict.String(), e.Rule
	r.Met = r.Verdict == r.Expected.Verdict && (e.Rule == nil || *e.Rule == r.Rule)
	return r
}

// Unmet says on one line what was expected and what decides.
func (r *Result) Unmet() string {
	name := ""
	if r.Name != "" {
		name = fmt.Sprintf("%q: ", r.Name)
	}
	expected := r.Expected.Verdict
	switch rule := r.Expected.Rule; {
	case rule == nil:
	case *rule == "":
		expected += " by no rule"
	default:
		expected += fmt.Sprintf(" by rule %q", *rule)
	}
	return fmt.Sprintf("%s:%d: %sexpected %s, but %s decides %s: from %s, %s",
		r.ExpectFile, r.ExpectLine, name, expected, r.By(), r.Verdict, r.From, r.Datagram())
}
