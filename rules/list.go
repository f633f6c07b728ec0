package rules

import (
	"fmt"
	"strings"
)

// anyValue means every value of a field, as if the key were left out.
const anyValue = "any"

// element returns element i of the field's list as a field of the same name.
func (f field) element(value any, i int) field {
	f.value, f.place = value, f.place.item(i)
	return f
}

// matchesAny reports whether the field matches everything.
func (f field) matchesAny() bool {
	list, _ := f.value.([]any)
	return !f.set() || f.value == anyValue || len(list) == 1 && list[0] == anyValue
}

// elements returns the field's values one by one, or none if it matches everything. It
// reports whether they are valid.
func (f field) elements() ([]field, bool) {
	list, ok := f.value.([]any)
	switch {
	case f.matchesAny():
		return nil, true
	case !ok:
		return []field{f}, true
	case len(list) == 0:
		f.fail("the list is empty; remove %s to match any, or add a value", f.name)
		return nil, false
	}
	elements := make([]field, 0, len(list))
	for i, v := range list {
		e := f.element(v, i)
		if v == anyValue {
			e.fail("\"any\" cannot be combined with other values; remove it, or the rest of the list")
			ok = false
			continue
		}
		elements = append(elements, e)
	}
	return elements, ok
}

// selection is the values of a field: those in in, or all values if in is nil, without
// those in out, which have an exclamation mark. If both are nil, the field matches
// everything.
type selection[T any] struct{ in, out []T }

// any reports whether the selection excludes nothing.
func (s selection[T]) any() bool { return s.in == nil && s.out == nil }

// collect parses the field's values, each of which may stand for several. It reports
// whether all are valid.
func collect[T any](f field, parse func(value any) ([]T, error)) (selection[T], bool) {
	var s selection[T]
	elements, ok := f.elements()
	for _, e := range elements {
		value, to := e.value, &s.in
		if text, isText := e.value.(string); isText && strings.HasPrefix(text, "!") {
			value, to = text[1:], &s.out
		}
		parsed, err := parse(value)
		if err != nil {
			e.fail("%v", listed(value, err))
			ok = false
			continue
		}
		if *to == nil {
			*to = []T{} // a set may be empty
		}
		*to = append(*to, parsed...)
	}
	return s, ok
}

// matchesNothing reports a selection that is empty.
func (f field) matchesNothing() {
	f.fail("matches nothing, so the rule never matches; remove the rule or the exclusions")
}

// listed replaces the error for a string that has the values of a list.
func listed(value any, mistake error) error {
	s, ok := value.(string)
	if !ok || !strings.Contains(s, ",") || len(s) > quoteLimit {
		return mistake
	}
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = quote(strings.TrimSpace(parts[i]))
	}
	return fmt.Errorf("%s has commas; did you mean the list [%s]?", quote(s), strings.Join(parts, ", "))
}
