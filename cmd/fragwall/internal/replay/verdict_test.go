package replay

import (
	"encoding/json"
	"testing"

	"fragwall/filter"
	"fragwall/packet/verdict"
)

// TestVerdictText has names that JSON has to escape, and such that it hasn't.
func TestVerdictText(t *testing.T) {
	for _, name := range []string{"dns", "ü 日本", `"quoted" \ and` + "\tmore\x00", "\xff", ""} {
		o := object("{")
		o.verdict(filter.Verdict{Action: verdict.Accept}, &filter.Rule{Name: name, Line: 7})
		var v struct {
			Verdict, Rule string
			Line          int
		}
		if err := json.Unmarshal(append(o, '}'), &v); err != nil {
			t.Errorf("%s: %v", o, err)
		}
		if want := string([]rune(name)); v.Rule != want || v.Verdict != "accept" || v.Line != 7 {
			t.Errorf("%q came out as %+v", name, v)
		}
	}
}
