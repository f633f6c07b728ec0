package rules

import (
	"iter"
	"runtime"
	"strings"
)

// outline is a text in parts that are decoded one after another, so that the memory for
// decoding does not grow with the number of rules.
type outline struct {
	// frame is the text without its rules; its lines keep their numbers. Of each run of
	// rules it keeps the header of the first, which stands for the last. So the frame
	// shows all conflicts between rules and other tables.
	frame  string
	place  *place // of frame
	pieces []piece
	rules  int // in all pieces
}

// piece is the text of some rules of a run.
type piece struct {
	text string
	line int  // of its first byte
	last bool // of the run
}

// pieceSize is the size in bytes from which a piece gets no further rule.
const pieceSize = 64 << 10

// outliner cuts a text. A run is consecutive rules, without the header of another table
// between them.
type outliner struct {
	scanner
	outline
	kept    strings.Builder        // what becomes the frame
	done    int                    // how much of the text is in the frame or left out
	outside int                    // keys and values outside of rules
	run     bool                   // inside a run
	body    int                    // where the part that is left out begins
	latest  int                    // line of its latest rule
	from    struct{ at, line int } // where the current piece begins
}

// cut returns the outline of a text. If the text exceeds a bound, there is no outline,
// and the bounds say which.
func cut(text string) (*outline, *bounds) {
	b := &bounds{}
	if len(text) > maxText {
		b.breaksSize(text)
		return nil, b
	}
	c := outliner{scanner: scanner{text: text, line: 1, bounds: b}, outline: outline{place: &place{line: 1}}}
	c.at = len(text) - len(strings.TrimPrefix(text, byteOrderMark))
	c.count(0, maxOutside, tooManyOutside)
	table := c.place
	for c.next() {
		if c.peek() != '[' {
			c.pair(table)
			continue
		}
		start := c.at
		h := c.header()
		if h.array && len(h.names) == 1 && h.names[0] == "rule" {
			c.beginRule(start, h.line)
			table = nil
		} else {
			c.endRun(start)
			table = c.place.begin(h)
		}
		b.value(h.line)
	}
	c.endRun(len(text))
	c.kept.WriteString(text[c.done:])
	c.frame = c.kept.String()
	return &c.outline, b
}

// count switches the bounds to another kind of keys and values, of which there may be
// most.
func (c *outliner) count(values, most int, tooMany string) {
	c.bounds.values, c.bounds.most, c.bounds.tooMany = values, most, tooMany
}

// beginRule begins a rule, whose header has been read and begins at start.
func (c *outliner) beginRule(start, line int) {
	switch {
	case !c.run:
		c.run, c.body, c.outside = true, c.at, c.bounds.values
		c.from.at, c.from.line = start, line
		c.place.add("rule", line)
	case start-c.from.at >= pieceSize:
		c.endPiece(start, false)
		c.from.at, c.from.line = start, line
	}
	c.latest = line
	if c.rules++; c.rules > maxRules {
		c.bounds.breaks(line, "more than %d rules; want at most that many", maxRules)
	}
	c.count(0, maxInRule, tooManyInRule)
}

// endRun ends the run of rules, if there is one, before the byte at end.
func (c *outliner) endRun(end int) {
	if !c.run {
		return
	}
	c.omit(c.body, end)
	c.endPiece(end, true)
	c.place.key("rule").append(c.latest)
	c.run = false
	c.count(c.outside, maxOutside, tooManyOutside)
}

// endPiece ends a piece before the byte at end.
func (c *outliner) endPiece(end int, last bool) {
	c.pieces = append(c.pieces, piece{text: c.text[c.from.at:end], line: c.from.line, last: last})
}

// omit leaves a part of the text out of the frame, except its line ends.
func (c *outliner) omit(from, to int) {
	c.kept.WriteString(c.text[c.done:from])
	for range strings.Count(c.text[from:to], "\n") {
		c.kept.WriteByte('\n')
	}
	c.done = to
}

// decoded is a piece with its values, or its syntax error.
type decoded struct {
	piece
	values map[string]any
	place  *place
	syntax *Mistake
}

// decode decodes a piece.
func (p piece) decode() decoded {
	d := decoded{piece: p}
	if d.values, d.syntax = read(p.text, p.line); d.syntax == nil {
		d.place = locate(p.text, p.line, &bounds{})
	}
	return d
}

// decodeAhead decodes pieces on all CPUs, and yields them in order.
func decodeAhead(pieces []piece) iter.Seq[decoded] {
	return func(yield func(decoded) bool) {
		ahead := make(chan chan decoded, runtime.GOMAXPROCS(0))
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			defer close(ahead)
			for _, p := range pieces {
				next := make(chan decoded, 1)
				select {
				case ahead <- next:
					go func() { next <- p.decode() }()
				case <-stop:
					return
				}
			}
		}()
		for next := range ahead {
			if !yield(<-next) {
				return
			}
		}
	}
}
