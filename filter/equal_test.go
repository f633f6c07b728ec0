package filter_test

import (
	"reflect"
	"testing"

	"fragwall/filter"
	"fragwall/packet/verdict"
)

// TestSameRules changes each field of a rule.
func TestSameRules(t *testing.T) {
	rule := func() filter.Rule {
		side, whole := verdict.Inside, false
		return filter.Rule{
			Name: "a", Line: 1, Action: verdict.Accept, From: &side, Protocols: one[uint8](6),
			Src: prefix("10.0.0.0/8"), Dst: prefix("2001:db8::/32"), SrcPorts: one[uint16](1), DstPorts: one[uint16](2),
			ICMPTypes: one[uint8](8), ICMPCodes: one[uint8](0), VLANs: &filter.VLANs{IDs: one[uint16](10)}, Fragmented: &whole,
			Log: true, Limit: filter.Rate{Count: 1, Per: 1},
		}
	}
	side, fragmented := verdict.Outside, true
	others := map[string]any{
		"Action": verdict.Reject, "From": &side, "Protocols": filter.Set[uint8]{}, "Src": filter.AddrSet(nil), "Dst": prefix("2001:db8::/33"),
		"SrcPorts": one[uint16](3), "DstPorts": filter.Set[uint16](nil), "ICMPTypes": one[uint8](0), "ICMPCodes": one[uint8](1),
		"VLANs": &filter.VLANs{IDs: one[uint16](10), Untagged: true}, "Fragmented": &fragmented, "Log": false, "Limit": filter.Rate{Count: 2, Per: 1},
	}
	a, b := rule(), rule()
	b.Name, b.Line = "b", 2
	if !a.SameAs(&b) {
		t.Error("two rules that differ only in their names are not equal")
	}
	for i := range reflect.TypeFor[filter.Rule]().NumField() {
		name := reflect.TypeFor[filter.Rule]().Field(i).Name
		if name == "Name" || name == "Line" {
			continue
		}
		changed := rule()
		field := reflect.ValueOf(&changed).Elem().Field(i)
		other, known := others[name]
		if !known {
			t.Fatalf("%s is not compared", name)
		}
		field.Set(reflect.ValueOf(other))
		if a.SameAs(&changed) || changed.SameAs(&a) {
			t.Errorf("rules with different %s are equal", name)
		}
		field.SetZero()
		if a.SameAs(&changed) {
			t.Errorf("a rule without %s is equal", name)
		}
	}
	if x, y := (filter.Rule{Src: filter.AddrSet{}}), (filter.Rule{}); x.SameAs(&y) {
		t.Error("an empty set is equal to all addresses")
	}
}
