package rules

import (
	"strings"
	"unicode"

	"fragwall/filter"
	"fragwall/packet"
)

// readRules reads every [[rule]], in order.
func readRules(root table) []filter.Rule {
	f := root.field("rule")
	switch v := f.value.(type) {
	case nil, []map[string]any:
	case map[string]any:
		f.fail("one table; begin each rule with [[rule]]")
	case []any:
		for i := range v {
			if _, ok := v[i].(map[string]any); !ok {
				e := f.element(v[i], i)
				e.fail("%s; begin each rule with [[rule]]", e.kind())
			}
		}
	default:
		f.fail("%s; begin each rule with [[rule]]", f.kind())
	}
	var rules []filter.Rule
	names := make(map[string]int)
	for _, t := range root.tables("rule") {
		rules = append(rules, filter.Rule{
			Name:       t.field("name").ruleName(names),
			Line:       t.place.line,
			Action:     t.field("action").required(),
			From:       t.field("from").sideOrAny(),
			Fragmented: t.field("fragmented").condition(),
			VLANs:      t.field("vlan").vlans(),
		})
		t.match(&rules[len(rules)-1])
	}
	return rules
}

// ruleName returns a rule's name. Names are the lines of the rules that have
// them.
func (f field) ruleName(names map[string]int) string {
	if !f.set() {
		f.fail("missing; add name = \"dns\" or the like")
		return ""
	}
	name := f.text("", "dns")
	if _, ok := f.value.(string); !ok {
		return ""
	}
	line, taken := names[name]
	switch {
	case strings.TrimSpace(name) == "":
		f.fail("%q is blank; want a name, such as \"dns\"", name)
	case strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		f.fail("%s holds a character that does not print; want letters, digits, signs and blanks", quote(name))
	case taken:
		f.fail("%s is the name of the rule at line %d too; want a name of its own", quote(name), line)
	default:
		names[name] = f.place.line
	}
	return name
}

// required returns a rule's action.
func (f field) required() filter.Action {
	if !f.set() {
		f.fail("missing; add action = \"accept\" or action = \"drop\"")
	}
	return f.action(filter.Drop, laterActions...)
}

// sideOrAny returns the side that the field names, nil for any.
func (f field) sideOrAny() *packet.Side {
	s := packet.Inside
	switch f.choice(anyValue, []string{packet.Inside.String(), packet.Outside.String(), anyValue}) {
	case anyValue:
		return nil
	case packet.Outside.String():
		s = packet.Outside
	}
	return &s
}

// condition returns the field's boolean, nil if it is not set.
func (f field) condition() *bool {
	if !f.set() {
		return nil
	}
	v := f.boolean(false)
	return &v
}

// vlans returns the frames that the field names by their tags, nil for any.
func (f field) vlans() *filter.VLANs {
	ranges, ok := collect(f, vlanIDs.parse)
	if ranges == nil || !ok {
		return nil
	}
	v := &filter.VLANs{}
	var tagged []numbers
	for _, r := range ranges {
		if r == untagged {
			v.Untagged = true
		} else {
			tagged = append(tagged, r)
		}
	}
	v.IDs = narrow[uint16](tagged)
	return v
}
