package rules

import (
	"cmp"
	"fmt"
	"time"
)

// table is one table of the file. A table that is not in the file has no values, and the
// place of what should contain it.
type table struct {
	report *report
	name   string // prefix of its keys in messages: "inside."; "" for a rule
	values map[string]any
	place  *place
	called map[string]string // the names of keys in messages, if they differ
}

// field returns a key of the table, set or not.
func (t table) field(key string) field {
	return field{report: t.report, name: t.name + cmp.Or(t.called[key], key), value: t.values[key], place: t.place.key(key)}
}

// table returns a table in t, empty if it does not exist. It reports a value that is not
// a table.
func (t table) table(key string) table {
	child := table{report: t.report, name: key + ".", place: t.place.key(key)}
	switch v := t.values[key].(type) {
	case nil:
	case map[string]any:
		child.values = v
	default:
		f := t.field(key)
		f.fail("%s; want one table, [%s]", f.kind(), key)
	}
	return child
}

// tables returns all tables with a name, one or a list. It skips values that are not
// tables.
func (t table) tables(key string) []table {
	at := t.place.key(key)
	var all []table
	add := func(v any, at *place) {
		if values, ok := v.(map[string]any); ok {
			all = append(all, table{report: t.report, values: values, place: at})
		}
	}
	switch v := t.values[key].(type) {
	case map[string]any:
		add(v, at)
	case []map[string]any:
		for i := range v {
			add(v[i], at.item(i))
		}
	case []any:
		for i := range v {
			add(v[i], at.item(i))
		}
	}
	return all
}

// field is a key of a table and its value.
type field struct {
	report *report
	name   string // name in messages
	value  any    // decoded; nil if the file does not set it
	place  *place // of the value, or of what should contain it
}

func (f field) set() bool { return f.value != nil }

// fail reports a mistake about the field, at its line.
func (f field) fail(format string, args ...any) {
	f.report.mistake(f.place.line, "%s: "+format, append([]any{f.name}, args...)...)
}

// note remarks on the field, at its line.
func (f field) note(format string, args ...any) {
	f.report.note(f.place.line, "%s: %s", f.name, fmt.Sprintf(format, args...))
}

// kind describes the type of the value, as the beginning of a message.
func (f field) kind() string { return show(f.value) + " is " + kindOf(f.value) }

// show returns a value as messages repeat it.
func show(value any) string {
	switch v := value.(type) {
	case string:
		return quote(v)
	case int64, float64, bool:
		return fmt.Sprint(v)
	}
	return "the value"
}

// kindOf returns the name of a decoded value's type.
func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "a number"
	case float64:
		return "a fraction"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a list"
}

// text returns the field's string, or the default.
func (f field) text(standard, example string) string {
	switch v := f.value.(type) {
	case nil:
		return standard
	case string:
		return v
	}
	f.fail("%s; want a string, such as %q", f.kind(), example)
	return standard
}

// number returns the field's number, between lo and hi, or the default.
func (f field) number(standard, lo, hi int64) int64 {
	switch v := f.value.(type) {
	case nil:
		return standard
	case int64:
		if lo <= v && v <= hi {
			return v
		}
		f.fail("%d is out of range; want %d to %d", v, lo, hi)
	default:
		f.fail("%s; want a number, such as %d", f.kind(), max(standard, lo))
	}
	return standard
}

// boolean returns the field's boolean, or the default.
func (f field) boolean(standard bool) bool {
	switch v := f.value.(type) {
	case nil:
		return standard
	case bool:
		return v
	}
	f.fail("%s; want true or false", f.kind())
	return standard
}

// choice returns the field's string, which must be one of acting, or the default.
func (f field) choice(standard string, acting []string) string {
	v, ok := f.value.(string)
	switch {
	case !f.set():
		return standard
	case !ok:
		f.fail("%s; want %s", f.kind(), either(acting))
		return standard
	}
	for _, c := range acting {
		if v == c {
			return v
		}
	}
	if best := nearest(v, acting); best != "" {
		f.fail("%s is unknown; did you mean %q?", quote(v), best)
	} else {
		f.fail("%s is unknown; want %s", quote(v), either(acting))
	}
	return standard
}
