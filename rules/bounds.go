package rules

import (
	"fmt"
	"strings"

	"fragwall/filter"
)

// The bounds of a configuration's text. Within them, the time and memory of the decoder
// are proportional to the size of the text. Without them, both grow with the square of
// the number of parts of a key and of the nesting depth, because the decoder keeps the
// whole path of each key, and recurses.
const (
	maxText    = 64 << 20 // bytes
	maxDepth   = 16       // brackets around a value
	maxParts   = 8        // parts of a key, including those of its tables
	maxKey     = 256      // bytes of a key, including those of its tables
	maxScalar  = 4096     // bytes of a string or a number (PATH_MAX)
	maxRules   = 1 << 18
	maxInRule  = 1 << 16 // keys and values of one rule: as many as there are ports
	maxOutside = 1 << 16 // keys and values of all other tables
)

// The bounds of the files that sets name, all together, and of the addresses in all sets
// and rules, 48 bytes each.
const (
	maxSetFiles  = 1024
	maxSetBytes  = 128 << 20
	maxAddresses = 1 << 21 // addresses, prefixes and ranges
)

const _ = uint(filter.MaxRules - maxRules) // the limit of package filter

var (
	tooManyInRule  = fmt.Sprintf("more than %d keys and values in one rule; want at most that many: put a long list into a set with a file", maxInRule)
	tooManyOutside = fmt.Sprintf("more than %d keys and values outside of [[rule]]; want at most that many: put a long set into a file", maxOutside)
)

var tooManyAddresses = fmt.Sprintf("more than %d addresses in all sets and rules; want at most that many: use one set in several rules, and prefixes instead of addresses", maxAddresses)

// path is the number of parts and of bytes of a key, including the tables that it is in.
type path struct{ parts, bytes int }

// bounds counts the contents of a text, up to the first bound that the text exceeds.
type bounds struct {
	path    path
	depth   int
	values  int    // and keys
	most    int    // limit on values; 0: none
	tooMany string // the mistake for more than that
	line    int    // where a bound is exceeded; 0: nowhere
	mistake string // which bound
}

func (b *bounds) broken() bool { return b.line > 0 }

// breaks records that a bound is exceeded, the first time.
func (b *bounds) breaks(line int, format string, args ...any) {
	if !b.broken() {
		b.line, b.mistake = line, fmt.Sprintf(format, args...)
	}
}

// breaksSize records that a text is too large.
func (b *bounds) breaksSize(text string) {
	b.breaks(1+strings.Count(text[:maxText], "\n"), "the file has more than %d bytes; want at most that many: put large sets into files", maxText)
}

// part counts one part of a key.
func (b *bounds) part(line int, name string) {
	if b.path.parts++; b.path.parts > maxParts {
		b.breaks(line, "a key has more than %d parts, those of its tables included; want at most that many", maxParts)
	}
	if b.path.bytes += len(name); b.path.bytes > maxKey {
		b.breaks(line, "a key has more than %d bytes, those of its tables included; want at most that many", maxKey)
	}
}

// value counts a value, an element of a list or a table.
func (b *bounds) value(line int) {
	if b.values++; b.most > 0 && b.values > b.most {
		b.breaks(line, "%s", b.tooMany)
	}
}

// scalar checks the size of a value that is neither a list nor a table.
func (b *bounds) scalar(line, size int) {
	if size > maxScalar {
		b.breaks(line, "a value has %d bytes; want at most %d", size, maxScalar)
	}
}

// open counts an opening bracket.
func (b *bounds) open(line int) {
	if b.depth++; b.depth > maxDepth {
		b.breaks(line, "a value has more than %d brackets around it; want at most that many", maxDepth)
	}
}

// close counts a closing bracket.
func (b *bounds) close() { b.depth-- }
