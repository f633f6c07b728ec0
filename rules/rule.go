package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// ruleReader reads rules one after another.
type ruleReader struct {
	sets      sets
	fragments packet.Mode
	lines     map[string]int // of the rules, by their names
	rules     []filter.Rule
}

// readRules reads every [[rule]], in order: those in the pieces, and those in the root.
func readRules(root table, o *outline, r *ruleReader) []filter.Rule {
	r.lines, r.rules = make(map[string]int, o.rules), slices.Grow(r.rules, o.rules)
	root.checkList("rule")
	rest := root.tables("rule")
	if len(o.pieces) == 0 {
		r.read(rest)
		return r.rules
	}
	for p := range decodeAhead(o.pieces) {
		if p.syntax != nil {
			root.report.only(p.syntax)
			return nil
		}
		tables := table{report: root.report, values: p.values, place: p.place}.tables("rule")
		if p.last {
			tables[len(tables)-1].adopt(rest[0])
			rest = rest[1:]
		}
		r.read(tables)
	}
	return r.rules
}

// lists are the keys of lists of tables, with the name of one element.
var lists = map[string]string{"rule": "rule", "expect": "expectation"}

// begin explains how a table of a list begins.
func begin(key string) string { return fmt.Sprintf("begin each %s with [[%s]]", lists[key], key) }

// checkList reports a value that has the key of a list of tables and is not one.
func (t table) checkList(key string) {
	f := t.field(key)
	switch v := f.value.(type) {
	case nil, []map[string]any:
	case map[string]any:
		f.fail("one table; %s", begin(key))
	case []any:
		for i := range v {
			if _, ok := v[i].(map[string]any); !ok {
				e := f.element(v[i], i)
				e.fail("%s; %s", e.kind(), begin(key))
			}
		}
	default:
		f.fail("%s; %s", f.kind(), begin(key))
	}
}

// adopt adds the tables inside a rule that have their own headers.
func (t table) adopt(headed table) {
	for key, value := range inOrder(headed.values) {
		at := headed.place.key(key)
		if _, taken := t.values[key]; taken {
			t.report.only(&Mistake{Line: at.line, Text: fmt.Sprintf("%s appears twice; remove one", quote("rule."+key))})
		}
		t.values[key] = value
		t.place.add(key, at.line)
		t.place.keys[key] = at
	}
}

// read reads rules.
func (r *ruleReader) read(tables []table) {
	for _, t := range tables {
		t.checkKeys("rule", contract["rule"])
		rule := filter.Rule{
			Name:       t.field("name").ruleName(r.lines),
			Line:       t.place.line,
			Action:     t.field("action").required(),
			From:       t.field("from").sideOrAny(),
			Fragmented: t.field("fragmented").condition(),
			VLANs:      t.field("vlan").vlans(),
			Log:        t.field("log").boolean(false),
			Limit:      t.field("limit").rate(),
		}
		t.match(&rule, r.sets)
		r.rules = append(r.rules, rule)
		if f := t.field("fragmented"); f.value == true && r.fragments == packet.ModeDrop {
			f.note("fragments.mode \"drop\" drops all fragments before any rule, so this rule never matches")
		}
	}
}

// ruleName returns a rule's name. names has the lines of the named rules.
func (f field) ruleName(names map[string]int) string {
	if !f.set() {
		f.fail("missing; add a name, such as name = \"dns\"")
		return ""
	}
	name := f.text("", "dns")
	if _, ok := f.value.(string); !ok {
		return ""
	}
	line, taken := names[name]
	switch {
	case strings.TrimSpace(name) == "":
		f.fail("%s is blank; want a name, such as \"dns\"", quote(name))
	case strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		f.fail("%s contains an unprintable character; want letters, digits, punctuation and spaces", quote(name))
	case taken:
		f.fail("%s is also the name of the rule at line %d; want a different name", quote(name), line)
	default:
		name = strings.Clone(name) // so that the text can be freed
		names[name] = f.place.line
	}
	return name
}

// required returns a rule's action.
func (f field) required() verdict.Action {
	if !f.set() {
		f.fail("missing; add action = \"accept\", \"drop\" or \"reject\"")
	}
	return f.action(verdict.Drop, ruleActions)
}

// sideOrAny returns the side that the field names, nil for any.
func (f field) sideOrAny() *verdict.Side {
	s := verdict.Inside
	switch f.choice(anyValue, []string{verdict.Inside.String(), verdict.Outside.String(), anyValue}) {
	case anyValue:
		return nil
	case verdict.Outside.String():
		s = verdict.Outside
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

// vlans returns the VLANs that the field names, nil for any.
func (f field) vlans() *filter.VLANs {
	set, _ := numberSet[uint16](f, vlanIDs)
	if set == nil {
		return nil
	}
	return &filter.VLANs{Untagged: set.Contains(untagged), IDs: set.Without(filter.NewSet(filter.Range[uint16]{Lo: untagged, Hi: untagged}))}
}

// rateUnits are the units of time in a limit.
var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// maxRate is the largest limit: one per nanosecond, more than any wire carries.
const maxRate = 1e9

// rate returns the field's rate, or the zero Rate, which is no limit.
func (f field) rate() filter.Rate {
	switch v := f.value.(type) {
	case nil:
		return filter.Rate{}
	case int64:
		if v > 0 {
			f.fail("%s without a unit of time; did you mean \"%d/s\"?", f.kind(), v)
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
