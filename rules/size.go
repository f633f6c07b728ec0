package rules

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// unit is a unit of memory.
type unit struct {
	name  string
	bytes int64
}

var units = []unit{
	{"B", 1},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
}

// parseSize returns the number of bytes of a number with a unit. Larger sizes become
// [math.MaxInt64].
func parseSize(s string) (int64, error) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	name := s[len(digits):]
	if digits == "" {
		return 0, fmt.Errorf("%s is not a size; want a whole number and a unit, such as \"64MiB\"", quote(s))
	}
	for _, u := range units {
		if u.name != name {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes {
			return math.MaxInt64, nil
		}
		return n * u.bytes, nil
	}
	if u := nearestUnit(name); u != "" {
		return 0, fmt.Errorf("%s is not a size; did you mean %s?", quote(s), quote(digits+u))
	}
	return 0, fmt.Errorf("%s is not a size; want a unit of B, KiB, MiB, GiB, kB, MB or GB, such as \"64MiB\"", quote(s))
}

// nearestUnit returns the unit that is most similar to an unknown one, or "".
func nearestUnit(name string) string {
	name = strings.TrimSpace(name)
	for _, u := range units {
		if strings.EqualFold(u.name, name) || strings.EqualFold(u.name, name+"iB") {
			return u.name
		}
	}
	return ""
}
