package rules

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"fragwall/filter"
	"fragwall/packet"
)

// readRules reads every [[rule]], in order.
func readRules(root table, sets sets) []filter.Rule {
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
	tables := root.tables("rule")
	rules := slices.Grow([]filter.Rule(nil), len(tables))
	names := make(map[string]int, len(tables))
	for _, t := range tables {
		rules = append(rules, filter.Rule{
			Name:       t.field("name").ruleName(names),
			Line:       t.place.line,
			Action:     t.field("action").required(),
			From:       t.field("from").sideOrAny(),
			Fragmented: t.field("fragmented").condition(),
			VLANs:      t.field("vlan").vlans(),
		})
		rule := &rules[len(rules)-1]
		rule.Log, rule.Limit = t.field("log").boolean(false), t.field("limit").rate()
		t.match(rule, sets)
	}
	if len(rules) > filter.MaxRules {
		f.fail("%d rules are too many; want at most %d", len(rules), filter.MaxRules)
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
		f.fail("missing; add action = \"accept\", \"drop\" or \"reject\"")
	}
	return f.action(filter.Drop, ruleActions)
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
	set, _ := numberSet[uint16](f, vlanIDs)
	if set == nil {
		return nil
	}
	return &filter.VLANs{Untagged: set.Contains(untagged), IDs: set.Without(filter.NewSet(filter.Range[uint16]{Lo: untagged, Hi: untagged}))}
}

// rateUnits are the times of a limit.
var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// maxRate bounds a limit: one each nanosecond is more than any wire carries.
const maxRate = 1e9

// rate returns the field's rate; the zero Rate, no limit, if it is not set.
func (f field) rate() filter.Rate {
	switch v := f.value.(type) {
	case nil:
		return filter.Rate{}
	case int64:
		if v > 0 {
			f.fail("%s without a time; did you mean \"%d/s\"?", f.kind(), v)
			return filter.Rate{}
		}
	case string:
		count, unit, _ := strings.Cut(v, "/")
		n, isNumber := parseDecimal(count)
		per, isUnit := rateUnits[unit]
		switch {
		case !isNumber || !isUnit:
			f.fail("%s is not a rate; want a number of datagrams and s, m or h, such as \"100/s\"", quote(v))
		case n < 1 || n > maxRate:
			f.fail("%s is out of range; want 1 to 1000000000, such as \"100/s\"", quote(v))
		default:
			return filter.Rate{Count: int(n), Per: per}
		}
		return filter.Rate{}
	}
	f.fail("%s; want a rate in a string, such as \"100/s\"", f.kind())
	return filter.Rate{}
}
