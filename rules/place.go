package rules

// place is the position of a value in the text. The places of a file form a tree of the
// same shape as its values. A nil place records nothing.
type place struct {
	line  int // of the key, the table's header, or the element of a list
	keys  map[string]*place
	items []*place
}

// key returns the place of a key of the table at p, or p if there is none.
func (p *place) key(name string) *place {
	if child := p.keys[name]; child != nil {
		return child
	}
	return p
}

// item returns the place of element i of the list at p, or p if there is none.
func (p *place) item(i int) *place {
	if i < len(p.items) {
		return p.items[i]
	}
	return p
}

// add returns the place of a key of the table at p, and creates it if there is none.
func (p *place) add(name string, line int) *place {
	if p == nil {
		return nil
	}
	if p.keys == nil {
		p.keys = make(map[string]*place)
	}
	if p.keys[name] == nil {
		p.keys[name] = &place{line: line}
	}
	return p.keys[name]
}

// table returns the table that a header or a dotted key means at p: for an array of
// tables, the last one.
func (p *place) table() *place {
	if p == nil {
		return nil
	}
	if n := len(p.items); n > 0 {
		return p.items[n-1]
	}
	return p
}

// append returns the place of another element of the list at p.
func (p *place) append(line int) *place {
	if p == nil {
		return nil
	}
	element := &place{line: line}
	p.items = append(p.items, element)
	return element
}

// descend returns the place of a key below the table at p, and creates it if there is
// none.
func (p *place) descend(names []string, line int) *place {
	for _, name := range names {
		p = p.table().add(name, line)
	}
	return p
}

// begin returns the place of the table, or of the element of an array of tables, that a
// header begins. p is the place of the whole file.
func (p *place) begin(h header) *place {
	table := p.descend(h.names, h.line)
	if h.array {
		return table.append(h.line)
	}
	table.line = h.line
	return table
}
