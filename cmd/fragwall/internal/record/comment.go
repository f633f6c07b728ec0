package record

import (
	"fmt"
	"strings"
)

// Why returns the reason for a drop and the rule that decided, on one line.
func (r *Decision) Why() string {
	switch {
	case r.Rule == "":
		return r.Reason
	case r.Reason == "":
		return fmt.Sprintf("rule %q, line %d", r.Rule, r.Line)
	}
	return fmt.Sprintf("%s: rule %q, line %d", r.Reason, r.Rule, r.Line)
}

// maxComment is the maximum length of a comment in bytes, that of an option in a pcapng
// (draft-ietf-opsawg-pcapng, section 3.5).
const maxComment = 65535

// Comment returns the verdict, the reason, the rule and the missing bytes, on one line.
func (r *Decision) Comment() string {
	text := r.Verdict
	if why := r.Why(); why != "" {
		text += ": " + why
	}
	if r.OverLimit != "" {
		text += fmt.Sprintf(", over the limit of %q", r.OverLimit)
	}
	if len(r.Missing) > 0 {
		text += ", missing bytes " + strings.Join(r.Missing, " ")
	}
	return text[:min(len(text), maxComment)]
}
