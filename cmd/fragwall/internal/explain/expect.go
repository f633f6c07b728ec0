package explain

import (
	"fmt"
	"slices"

	"fragwall/filter"
	"fragwall/rules"
)

// Result is an expectation and the decision of the policy.
type Result struct {
	ExpectFile string   `json:"expect_file"`
	ExpectLine int      `json:"expect_line"` // line of the [[expect]] header
	Name       string   `json:"name,omitempty"`
	Met        bool     `json:"met"`
	Expected   Expected `json:"expected"`
	Answer
	hint string // why the expected rule does not decide; "" if not known
}

// Expected is the expected decision.
type Expected struct {
	Verdict string  `json:"verdict"`
	Rule    *string `json:"rule,omitempty"` // "" means that no rule decides
}

// Expect compares an expectation from a file with the decision of the policy.
func (p *Policy) Expect(file string, e *rules.Expectation) Result {
	r := Result{ExpectFile: file, ExpectLine: e.Line, Name: e.Name, Answer: p.Ask(e.Datagram)}
	r.Expected.Verdict, r.Expected.Rule = e.Verdict.String(), e.Rule
	r.Met = r.Verdict == r.Expected.Verdict && (e.Rule == nil || *e.Rule == r.Rule)
	if e.Rule != nil && *e.Rule != "" && *e.Rule != r.Rule {
		r.hint = p.hint(*e.Rule, r.Near)
	}
	return r
}

// hint returns why a rule does not decide: it does not exist, or one field does not match.
func (p *Policy) hint(rule string, near []Near) string {
	if !slices.ContainsFunc(p.config.Policy.Rules, func(r filter.Rule) bool { return r.Name == rule }) {
		return fmt.Sprintf("; there is no rule %q", rule)
	}
	for _, n := range near {
		if n.Rule == rule {
			return fmt.Sprintf("; of rule %q (%s:%d) all matches but %s", rule, p.config.File, n.Line, n.Field)
		}
	}
	return ""
}

// Unmet returns one line about what was expected and what decides.
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
	return fmt.Sprintf("%s:%d: %sexpected %s, but %s decides %s: from %s, %s%s",
		r.ExpectFile, r.ExpectLine, name, expected, r.By(), r.Verdict, r.From, r.Datagram(), r.hint)
}
