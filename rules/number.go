package rules

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"fragwall/filter"
)

// numbers are the numbers from Lo to Hi.
type numbers = filter.Range[int64]

// scale describes the numbers that a field accepts.
type scale struct {
	noun         string // name of one number, with its article
	example      string
	exampleOfOne string // used if exactly one number is expected
	lo, hi       int64
	hint         string           // suggestion for a number out of range
	single       bool             // accepts no ranges
	names        map[string]int64 // names of numbers, if there are any
	// foreign are names of another scale, foreignNoun, which users confuse with this one.
	foreign     map[string]int64
	foreignNoun string
}

var (
	ports     = scale{noun: "a port", example: `53, "1024-65535" or [53, 853]`, exampleOfOne: "53", hi: 65535}
	icmpCodes = scale{noun: "an ICMP code", example: `0, "0-3" or [1, 4]`, exampleOfOne: "0", hi: 255}
	vlanIDs   = scale{
		noun: "a VLAN", example: `10, "100-199", "none" or [10, 20]`, exampleOfOne: `10 or "none"`, lo: 1, hi: 4094,
		hint: `, or "none" for frames without a VLAN`, names: map[string]int64{"none": 0},
	}
)

// untagged is the number for "none" in vlanIDs.
const untagged = 0

// parse returns the numbers of a decoded value.
func (s scale) parse(value any) ([]numbers, error) {
	n, err := s.parseOne(value)
	return []numbers{n}, err
}

func (s scale) parseOne(value any) (numbers, error) {
	switch v := value.(type) {
	case int64:
		return numbers{Lo: v, Hi: v}, s.check(v)
	case string:
		if n, ok := s.names[v]; ok {
			return numbers{Lo: n, Hi: n}, nil
		}
		return s.parseText(v)
	}
	return numbers{}, fmt.Errorf("%s is %s; want %s, such as %s", show(value), kindOf(value), s.noun, s.example)
}

// parseText returns the numbers of a text with one number or a range.
func (s scale) parseText(text string) (numbers, error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	lo, okLo := parseDecimal(first)
	hi, okHi := parseDecimal(last)
	switch {
	case !okLo || !okHi || isRange && s.single:
		return numbers{}, s.unreadable(text)
	case s.check(lo) != nil:
		return numbers{}, s.check(lo)
	case s.check(hi) != nil:
		return numbers{}, s.check(hi)
	case lo > hi:
		return numbers{}, fmt.Errorf("%q is in reverse order; did you mean \"%s-%s\"?", text, last, first)
	}
	return numbers{Lo: lo, Hi: hi}, nil
}

// check returns an error for a number out of range.
func (s scale) check(n int64) error {
	if n < s.lo || n > s.hi {
		return fmt.Errorf("%d is out of range; want %d to %d%s", n, s.lo, s.hi, s.hint)
	}
	return nil
}

// unreadable returns the error for a text that is not a number, with a suggestion.
func (s scale) unreadable(text string) error {
	return lazy(func() string { return s.explain(text) })
}

func (s scale) explain(text string) string {
	corrected := strings.ReplaceAll(strings.Join(strings.Fields(text), ""), ":", "-")
	if corrected != text {
		if _, err := s.parseText(corrected); err == nil {
			return fmt.Sprintf("%s is not %s; did you mean %q?", quote(text), s.noun, corrected)
		}
	}
	if _, ok := s.foreign[text]; ok {
		return fmt.Sprintf("%q is not %s, but %s; change the type or the protocol", text, s.noun, s.foreignNoun)
	}
	if best := nearest(text, slices.Sorted(maps.Keys(s.names))); best != "" {
		return fmt.Sprintf("%s is not %s; did you mean %q?", quote(text), s.noun, best)
	}
	return fmt.Sprintf("%s is not %s; want one such as %s", quote(text), s.noun, s.example)
}

// parseDecimal returns a number in decimal digits. A number beyond an int64 becomes the
// largest one. Leading zeros are refused, because they may mean octal.
func parseDecimal(text string) (n int64, ok bool) {
	if !decimal(text) || len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	n, _ = strconv.ParseInt(text, 10, 64)
	return n, true
}

// numberSet returns the field's numbers, or nil for any. They must fit T. It reports
// whether all are valid.
func numberSet[T ~uint8 | ~uint16](f field, s scale) (filter.Set[T], bool) {
	selected, ok := collect(f, s.parse)
	if selected.any() {
		return nil, ok
	}
	fitting := func(ranges []numbers) []filter.Range[T] {
		fit := make([]filter.Range[T], len(ranges))
		for i, r := range ranges {
			fit[i] = filter.Range[T]{Lo: T(r.Lo), Hi: T(r.Hi)}
		}
		return fit
	}
	set := filter.NewSet(filter.Range[T]{Lo: 0, Hi: T(s.hi)})
	if selected.in != nil {
		set = filter.NewSet(fitting(selected.in)...)
	}
	if selected.out != nil {
		set = set.Without(filter.NewSet(fitting(selected.out)...))
	}
	if ok && len(set) == 0 {
		f.matchesNothing()
		ok = false
	}
	return set, ok
}
