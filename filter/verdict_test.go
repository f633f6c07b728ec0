package filter_test

import (
	"testing"
	"unsafe"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// TestVerdictHoldsNumbers keeps a verdict across a reload. Its rule numbers refer to the table
// that made it, and it has that table's generation.
func TestVerdictHoldsNumbers(t *testing.T) {
	d := &packet.View{Parsed: decode(t, udp(families[0].in, families[0].out))}
	old := compile(t, &filter.Policy{Rules: []filter.Rule{{Name: "a", Action: verdict.Accept, Log: true}}})
	reloaded := filter.Compile(&filter.Policy{Rules: []filter.Rule{{Name: "b", Protocols: one[uint8](6)}, {Name: "a"}}}, old)
	before, after := old.Judge(d, stopped), reloaded.Judge(d, stopped)
	if before.Rule != 1 || old.Rule(before.Rule).Name != "a" || !before.Has(filter.Logged) {
		t.Errorf("before: %+v", before)
	}
	if after.Rule != 2 || reloaded.Rule(after.Rule).Name != "a" || after.Has(filter.Logged) {
		t.Errorf("after: %+v", after)
	}
	if before.Generation == 0 || before.Generation == after.Generation {
		t.Errorf("generations %d and %d", before.Generation, after.Generation)
	}
	if none := compile(t, &filter.Policy{}).Judge(d, stopped); none.Rule != 0 || none.Generation == 0 || old.Rule(none.Rule) != nil {
		t.Errorf("without rules: %+v", none)
	}
	if size := unsafe.Sizeof(filter.Verdict{}); size != 16 {
		t.Errorf("a verdict has %d bytes, want 16", size)
	}
}
