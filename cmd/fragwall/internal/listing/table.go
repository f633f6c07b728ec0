package listing

import (
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// tableRows is the number of rows that are collected before they are written. Each column is as
// wide as its widest cell so far.
const tableRows = 512

// column is a column of a table.
type column struct {
	head  string
	right bool // align to the right, for numbers
}

// Table writes any number of rows in aligned columns.
type Table struct {
	to      io.Writer
	columns []column
	widths  []int
	cells   []byte // contents of the collected cells
	ends    []int  // end of each cell in cells
	runes   []int  // width of each cell
	line    []byte
	begun   bool // whether the header was written
}

func newTable(to io.Writer, columns []column) *Table {
	t := &Table{to: to, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		t.widths[i] = utf8.RuneCountInString(c.head)
	}
	return t
}

// cell ends a cell, which consists of what was appended to cells.
func (t *Table) cell() {
	column, begin := len(t.ends)%len(t.columns), 0
	if n := len(t.ends); n > 0 {
		begin = t.ends[n-1]
	}
	if len(t.cells) == begin {
		t.cells = append(t.cells, '-') // empty cell
	}
	t.ends = append(t.ends, len(t.cells))
	n := utf8.RuneCount(t.cells[begin:])
	t.runes = append(t.runes, n)
	t.widths[column] = max(t.widths[column], n)
}

func (t *Table) text(s string) {
	t.cells = append(t.cells, s...)
	t.cell()
}

func (t *Table) count(n uint64) {
	t.cells = strconv.AppendUint(t.cells, n, 10)
	t.cell()
}

func (t *Table) duration(seconds float64) {
	t.cells = appendDuration(t.cells, time.Duration(seconds*float64(time.Second)))
	t.cell()
}

// endRow ends a row, and writes the collected rows if there are enough.
func (t *Table) endRow() error {
	if len(t.ends) < tableRows*len(t.columns) {
		return nil
	}
	return t.Flush()
}

// Flush writes the collected rows and, at the first call, the header.
func (t *Table) Flush() error {
	t.line = t.line[:0]
	if !t.begun {
		t.begun = true
		for i, c := range t.columns {
			t.pad(i, []byte(c.head), utf8.RuneCountInString(c.head))
		}
	}
	begin := 0
	for i, end := range t.ends {
		t.pad(i%len(t.columns), t.cells[begin:end], t.runes[i])
		begin = end
	}
	t.cells, t.ends, t.runes = t.cells[:0], t.ends[:0], t.runes[:0]
	_, err := t.to.Write(t.line)
	return err
}

// pad appends a cell of a column to the lines. runes is the width of the cell.
func (t *Table) pad(column int, cell []byte, runes int) {
	blanks := t.widths[column] - runes
	last := column == len(t.columns)-1
	if t.columns[column].right {
		t.blanks(blanks)
	}
	t.line = append(t.line, cell...)
	switch {
	case last:
		t.line = append(t.line, '\n')
	case t.columns[column].right:
		t.blanks(2)
	default:
		t.blanks(blanks + 2)
	}
}

const someBlanks = "                                "

func (t *Table) blanks(n int) {
	for ; n > len(someBlanks); n -= len(someBlanks) {
		t.line = append(t.line, someBlanks...)
	}
	t.line = append(t.line, someBlanks[:n]...)
}

// Duration returns a time in seconds in the format of the tables.
func Duration(seconds float64) string {
	return string(appendDuration(nil, time.Duration(seconds*float64(time.Second))))
}

// appendDuration appends a duration in its two largest units, or in tenths of a second if it is
// shorter than 10 s.
func appendDuration(b []byte, d time.Duration) []byte {
	if d < 10*time.Second {
		return append(strconv.AppendFloat(b, d.Seconds(), 'f', 1, 64), 's')
	}
	for i, u := range durationUnits {
		if d < u.unit {
			continue
		}
		b = append(strconv.AppendInt(b, int64(d/u.unit), 10), u.name)
		if i+1 < len(durationUnits) {
			next := durationUnits[i+1]
			b = append(strconv.AppendInt(b, int64(d%u.unit/next.unit), 10), next.name)
		}
		break
	}
	return b
}

var durationUnits = [...]struct {
	name byte
	unit time.Duration
}{{'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
