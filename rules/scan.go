package rules

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// byteOrderMark may begin a text in UTF-8.
const byteOrderMark = "\ufeff"

// scanner walks over a text. It knows the shapes of TOML, and finds the places of values.
// If the text is not TOML, it continues as well as it can. Before the point where the
// decoder stops, it sees the text as the decoder does. It observes the bounds of a text.
type scanner struct {
	text   string
	at     int // offset of the next byte
	line   int // line of the next byte, starting at 1
	bounds *bounds
}

// locate returns the places of all values in a text, up to the first bound that the text
// exceeds. line is the number of the first line.
func locate(text string, line int, b *bounds) *place {
	s := scanner{text: text, at: len(text) - len(strings.TrimPrefix(text, byteOrderMark)), line: line, bounds: b}
	root := &place{line: line}
	table := root
	for s.next() {
		if s.peek() == '[' {
			h := s.header()
			table = root.begin(h)
			b.value(h.line)
		} else {
			s.pair(table)
		}
	}
	return root
}

// next moves to the next header or key, and reports whether there is one.
func (s *scanner) next() bool {
	s.blanks()
	return !s.end()
}

// end reports whether nothing is left, or nothing that should be read.
func (s *scanner) end() bool { return s.at >= len(s.text) || s.bounds.broken() }

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// take skips a byte, and reports whether it was there.
func (s *scanner) take(b byte) bool {
	if s.peek() != b || s.at == len(s.text) {
		return false
	}
	s.at++
	return true
}

// spaces skips spaces and tabs.
func (s *scanner) spaces() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t') {
		s.at++
	}
}

// rest skips the rest of the line.
func (s *scanner) rest() {
	if i := strings.IndexByte(s.text[s.at:], '\n'); i >= 0 {
		s.at += i
	} else {
		s.at = len(s.text)
	}
}

// blanks skips spaces, line ends and comments.
func (s *scanner) blanks() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		case '#':
			s.rest()
			continue
		default:
			return
		}
		s.at++
	}
}

// header is a line that begins a table, or an element of an array of tables.
type header struct {
	names []string
	array bool
	line  int
}

// header reads a header and the rest of its line.
func (s *scanner) header() header {
	h := header{line: s.line}
	s.at++
	h.array = s.take('[')
	s.bounds.path = path{}
	h.names = s.dotted()
	s.rest()
	return h
}

// pair reads a key and its value into a table, and the rest of the line.
func (s *scanner) pair(table *place) {
	s.entry(table)
	s.rest()
}

// entry reads a key and its value into a table.
func (s *scanner) entry(table *place) {
	line, outer := s.line, s.bounds.path
	p := table.descend(s.dotted(), line)
	s.spaces()
	if s.take('=') {
		s.value(p)
	}
	s.bounds.path = outer
}

// dotted reads a key and moves past it.
func (s *scanner) dotted() []string {
	names := make([]string, 0, 2)
	for {
		s.spaces()
		name := s.name()
		s.bounds.part(s.line, name)
		names = append(names, name)
		s.spaces()
		if !s.take('.') || s.bounds.broken() {
			return names
		}
	}
}

// name reads one part of a key.
func (s *scanner) name() string {
	start := s.at
	if b := s.peek(); b == '"' || b == '\'' {
		s.string()
		return unquote(s.text[start:s.at])
	}
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n', '.', '=', ']':
			return s.text[start:s.at]
		}
	}
	return s.text[start:]
}

// unquote returns the string of a quoted key.
func unquote(quoted string) string {
	if len(quoted) > maxKey {
		return quoted // it exceeds a bound anyway
	}
	if inner := quoted[1:max(1, len(quoted)-1)]; !strings.ContainsAny(inner, `\"'`) {
		return inner
	}
	var decoded struct{ Key string }
	if _, err := toml.Decode("key = "+quoted, &decoded); err != nil {
		return quoted
	}
	return decoded.Key
}

// value reads a value with everything in it.
func (s *scanner) value(p *place) {
	s.spaces()
	s.bounds.value(s.line)
	start, line := s.at, s.line
	switch s.peek() {
	case '"', '\'':
		s.string()
	case '[':
		s.each(func() { s.value(p.append(s.line)) })
		return
	case '{':
		s.each(func() { s.entry(p) })
		return
	default:
		s.bare()
	}
	s.bounds.scalar(line, s.at-start)
}

// bare reads a value without quotes or brackets.
func (s *scanner) bare() {
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case ',', ']', '}', '#', '\r', '\n':
			return
		}
	}
}

// each reads the elements between brackets and commas.
func (s *scanner) each(read func()) {
	s.at++
	s.bounds.open(s.line)
	defer s.bounds.close()
	for {
		s.blanks()
		switch {
		case s.end(), s.take(']'), s.take('}'):
			return
		case s.take(','):
			continue
		}
		before := s.at
		if read(); s.at == before { // not TOML
			s.at++
		}
	}
}

// string reads a string of any of the four kinds. A string of one line ends with the
// line, even without its closing quote.
func (s *scanner) string() {
	quote := s.peek()
	delimiter := s.text[s.at : s.at+1]
	if long := strings.Repeat(delimiter, 3); strings.HasPrefix(s.text[s.at:], long) {
		delimiter = long
	}
	s.at += len(delimiter)
	for s.at < len(s.text) && !strings.HasPrefix(s.text[s.at:], delimiter) {
		switch b := s.text[s.at]; {
		case b == '\n' && len(delimiter) == 1:
			return
		case b == '\n':
			s.line++
		case b == '\\' && quote == '"' && s.at+1 < len(s.text) && s.text[s.at+1] != '\n':
			s.at++
		}
		s.at++
	}
	s.at = min(s.at+len(delimiter), len(s.text))
	if len(delimiter) == 3 { // a long string may end in two quotes of its own
		for range 2 {
			s.take(quote)
		}
	}
}
