package rules

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fragwall/filter"
)

// sets are the sets of addresses by name; invalid sets are nil.
type sets map[string]filter.AddrSet

// readSets reads [sets], including the files that it names.
func readSets(root table) sets {
	t := root.table("sets")
	known := make(sets)
	t.report.sets = make(map[string]uint64)
	for name := range inOrder(t.values) {
		set := t.field(name)
		if !validSetName(name) {
			t.report.mistake(set.place.line, "sets: %s is not a name; want letters, digits, '-' and '_'", quote(name))
		}
		known[name] = readSet(set)
		t.report.sets[name] = digest(known[name])
	}
	return known
}

// validSetName reports whether a name can follow an "@".
func validSetName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '-' && c != '_'
	})
}

// readSet returns the addresses of one set, or nil if they are invalid.
func readSet(f field) filter.AddrSet {
	switch v := f.value.(type) {
	case map[string]any:
		return readSetFile(f, table{report: f.report, name: f.name + ".", values: v, place: f.place})
	case []any:
		if len(v) == 0 {
			f.fail("the set is empty; add an address, or remove it")
			return nil
		}
	}
	if f.matchesAny() {
		f.fail("\"any\" is not a set; remove the field that uses it, or list \"0.0.0.0/0\" and \"::/0\"")
		return nil
	}
	selected, ok := collect(f, func(value any) ([]addresses, error) {
		if s, isText := value.(string); isText && strings.HasPrefix(s, "@") {
			return nil, fmt.Errorf("%s: a set cannot contain a set; list its addresses", quote(s))
		}
		return f.report.address(value)
	})
	if !ok {
		return nil
	}
	return selectAddresses(selected)
}

// errTooManyAddresses is the error for an address beyond the limit on all together.
var errTooManyAddresses = errors.New(tooManyAddresses)

// address returns the addresses of a decoded value, and counts them.
func (r *report) address(value any) ([]addresses, error) {
	if !r.takes(1) {
		return nil, errTooManyAddresses
	}
	a, err := parseAddresses(value)
	return []addresses{a}, err
}

// readSetFile returns the addresses in the file of a set.
func readSetFile(f field, t table) filter.AddrSet {
	for key := range inOrder(t.values) {
		if key != "file" {
			t.report.mistake(t.place.key(key).line, "unknown key %s; a set's only key is \"file\"", quote(f.name+"."+key))
		}
	}
	path := t.field("file")
	name := path.text("", "blocked.txt")
	switch _, isText := path.value.(string); {
	case !path.set():
		f.fail("missing file; add file = \"blocked.txt\", or list the addresses")
		return nil
	case !isText:
		return nil
	case name == "":
		path.fail("the name is empty; want a file name")
		return nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(t.report.file), name)
	}
	t.report.files = append(t.report.files, name)
	text, err := t.report.reading.read(name)
	if err != nil {
		path.fail("%v", err)
		t.report.causes = append(t.report.causes, err)
		return nil
	}
	return parseSetFile(t.report, name, text)
}

// parseSetFile returns the addresses in a text, one per line. "#" begins a comment.
func parseSetFile(r *report, name, text string) filter.AddrSet {
	if !utf8.ValidString(text) {
		r.elsewhere(name, 1, "not UTF-8; save the file as UTF-8")
		return nil
	}
	selected := selection[addresses]{in: make([]addresses, 0, min(strings.Count(text, "\n")+1, maxAddresses))}
	ok, number := true, 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		element, _, _ := strings.Cut(line, "#")
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		to := &selected.in
		if strings.HasPrefix(element, "!") {
			element, to = element[1:], &selected.out
		}
		if len(element) > maxScalar {
			element = element[:maxScalar] // which is not an address either
		}
		if !r.takes(1) {
			r.elsewhere(name, number, "%s", tooManyAddresses)
			return nil
		}
		a, err := parseAddresses(element)
		if err != nil {
			r.elsewhere(name, number, "%v", err)
			ok = false
			continue
		}
		*to = append(*to, a)
	}
	if !ok {
		return nil
	}
	return selectAddresses(selected)
}

// selectAddresses returns the set of a selection, nil for any.
func selectAddresses(s selection[addresses]) filter.AddrSet {
	switch {
	case s.any():
		return nil
	case s.in == nil:
		return filter.NewAddrSet(s.out...).Complement()
	case s.out == nil:
		return filter.NewAddrSet(s.in...)
	}
	return filter.NewAddrSet(s.in...).Without(filter.NewAddrSet(s.out...))
}

// addresses returns the field's addresses, nil for any. It reports whether all are valid.
func (s sets) addresses(f field) (filter.AddrSet, bool) {
	if text, _ := f.value.(string); strings.HasPrefix(text, "@") && len(s[text[1:]]) > 0 {
		return s[text[1:]], true // shared by all rules that name it
	}
	broken := false
	selected, ok := collect(f, func(value any) ([]addresses, error) {
		text, _ := value.(string)
		name, isSet := strings.CutPrefix(text, "@")
		if !isSet {
			a, err := f.report.address(value)
			if _, known := s[text]; known && err != nil {
				err = fmt.Errorf("%s is the name of a set, not an address; did you mean %q?", quote(text), "@"+text)
			}
			return a, err
		}
		set, known := s[name]
		if !known {
			return nil, s.unknown(name)
		}
		if broken = broken || set == nil; !f.report.takes(len(set)) {
			return nil, errTooManyAddresses
		}
		return set, nil
	})
	if !ok || broken {
		return nil, false
	}
	set := selectAddresses(selected)
	switch {
	case set == nil || len(set) > 0:
		return set, true
	case selected.out == nil: // nothing was excluded
		f.fail("the set is empty, so the rule never matches; add an address to it, or remove the rule")
	default:
		f.matchesNothing()
	}
	return set, false
}

// maxCompared is the maximum number of sets that an unknown name is compared with.
const maxCompared = 1000

// unknown returns the error for an unknown set, with a suggestion.
func (s sets) unknown(name string) error {
	return lazy(func() string {
		if len(s) <= maxCompared {
			if best := nearest(name, slices.Sorted(maps.Keys(s))); best != "" {
				return fmt.Sprintf("there is no set %s; did you mean %q?", quote(name), "@"+best)
			}
		}
		return fmt.Sprintf("there is no set %s; add it under [sets]", quote(name))
	})
}
