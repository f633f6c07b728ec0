package rules

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// place is where a value stands in the text. The places of a file make a tree
// of the same shape as its values.
type place struct {
	line  int // of the key, the table's header, or the element of a list
	keys  map[string]*place
	items []*place
}

// key returns the place of a key of the table at p, or p where it has none.
func (p *place) key(name string) *place {
	if child := p.keys[name]; child != nil {
		return child
	}
	return p
}

// item returns the place of element i of the list at p, or p where it has
// none.
func (p *place) item(i int) *place {
	if i < len(p.items) {
		return p.items[i]
	}
	return p
}

// add returns the place of a key of the table at p, which it makes if there
// is none.
func (p *place) add(name string, line int) *place {
	if p.keys == nil {
		p.keys = make(map[string]*place)
	}
	if p.keys[name] == nil {
		p.keys[name] = &place{line: line}
	}
	return p.keys[name]
}

// table returns the table that a header or a dotted key means by p: of an
// array of tables, the last.
func (p *place) table() *place {
	if n := len(p.items); n > 0 {
		return p.items[n-1]
	}
	return p
}

// locate returns the places of all values in a text that [decode] took: it
// knows TOML's shapes but not its errors. Lines count from 1.
func locate(text string) *place {
	s := scanner{rest: strings.TrimPrefix(text, "\ufeff"), line: 1}
	root := &place{line: 1}
	table := root
	for s.skip(" \t\r\n"); s.rest != ""; s.skip(" \t\r\n") {
		if s.rest[0] == '[' {
			table = s.header(root)
		} else {
			s.pair(table)
		}
	}
	return root
}

// scanner walks over a text.
type scanner struct {
	rest string
	line int // of the first byte of rest
}

// advance steps over n bytes, or what is left.
func (s *scanner) advance(n int) {
	n = min(n, len(s.rest))
	s.line += strings.Count(s.rest[:n], "\n")
	s.rest = s.rest[n:]
}

// take steps over a prefix and reports whether it was there.
func (s *scanner) take(prefix string) bool {
	if !strings.HasPrefix(s.rest, prefix) {
		return false
	}
	s.advance(len(prefix))
	return true
}

// until steps to the first of the given bytes, or to the end.
func (s *scanner) until(bytes string) {
	i := strings.IndexAny(s.rest, bytes)
	if i < 0 {
		i = len(s.rest)
	}
	s.advance(i)
}

// skip steps over the given bytes and over comments.
func (s *scanner) skip(bytes string) {
	for {
		s.advance(len(s.rest) - len(strings.TrimLeft(s.rest, bytes)))
		if !strings.HasPrefix(s.rest, "#") {
			return
		}
		s.until("\n")
	}
}

// header reads the header of a table, or of an element of an array of tables,
// and returns its place.
func (s *scanner) header(root *place) *place {
	line := s.line
	s.advance(1)
	array := s.take("[")
	p := root
	for _, name := range s.dotted() {
		p = p.table().add(name, line)
	}
	s.until("\n")
	if array {
		p.items = append(p.items, &place{line: line})
		return p.table()
	}
	p.line = line
	return p
}

// pair reads a key and its value into a table.
func (s *scanner) pair(table *place) {
	line := s.line
	p := table
	for _, name := range s.dotted() {
		p = p.table().add(name, line)
	}
	s.advance(1) // the equals sign
	s.value(p)
}

// dotted reads a key and steps to the byte behind it.
func (s *scanner) dotted() []string {
	var names []string
	for {
		s.skip(" \t")
		names = append(names, s.name())
		s.skip(" \t")
		if !s.take(".") {
			return names
		}
	}
}

// name reads one part of a dotted key.
func (s *scanner) name() string {
	start := s.rest
	if strings.HasPrefix(s.rest, `"`) || strings.HasPrefix(s.rest, "'") {
		s.text()
		return unquote(start[:len(start)-len(s.rest)])
	}
	s.until(" \t\r\n.=]")
	return start[:len(start)-len(s.rest)]
}

// unquote returns the string that a quoted key stands for.
func unquote(quoted string) string {
	var decoded struct{ Key string }
	if _, err := toml.Decode("key = "+quoted, &decoded); err != nil {
		return quoted
	}
	return decoded.Key
}

// value reads a value and all that is in it.
func (s *scanner) value(p *place) {
	s.skip(" \t")
	switch {
	case strings.HasPrefix(s.rest, `"`), strings.HasPrefix(s.rest, "'"):
		s.text()
	case s.take("["):
		s.each(func() {
			element := &place{line: s.line}
			p.items = append(p.items, element)
			s.value(element)
		})
	case s.take("{"):
		s.each(func() { s.pair(p) })
	default:
		s.until(",]}#\r\n")
	}
}

// each reads what stands between commas, up to the closing bracket.
func (s *scanner) each(read func()) {
	for {
		s.skip(" \t\r\n,")
		if s.rest == "" || s.take("]") || s.take("}") {
			return
		}
		read()
	}
}

// text reads a string of any of the four kinds.
func (s *scanner) text() {
	delimiter := s.rest[:1]
	if long := strings.Repeat(delimiter, 3); strings.HasPrefix(s.rest, long) {
		delimiter = long
	}
	s.advance(len(delimiter))
	for s.rest != "" && !s.take(delimiter) {
		if s.rest[0] == '\\' && delimiter[0] == '"' {
			s.advance(1)
		}
		s.advance(1)
	}
	if len(delimiter) == 3 { // a long string may end in two quotes of its own
		for range 2 {
			s.take(delimiter[:1])
		}
	}
}
