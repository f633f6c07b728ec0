package listing

import (
	"io"
	"strings"
)

// WaitingTable writes incomplete datagrams as a table.
type WaitingTable struct{ *Table }

// NewWaitingTable returns an empty table.
func NewWaitingTable(to io.Writer) WaitingTable {
	return WaitingTable{newTable(to, []column{
		{"PROTO", false}, {"FROM", false}, {"SOURCE", false}, {"DESTINATION", false}, {"VLAN", false}, {"ID", true},
		{"FRAGMENTS", true}, {"MEMORY", true}, {"AGE", true}, {"LEFT", true},
		{"STATE", false}, {"RECEIVED", false}, {"MISSING", false},
	})}
}

// Add adds a row. It may be written later, by [Table.Flush].
func (t WaitingTable) Add(w *Waiting) error {
	t.text(w.Protocol)
	t.text(w.From)
	t.host(w.Src, w.SrcPort)
	t.host(w.Dst, w.DstPort)
	t.vlans(w.VLANs)
	t.count(uint64(w.Identification))
	t.count(uint64(w.Fragments))
	t.count(uint64(w.Memory))
	t.duration(w.Age)
	t.duration(w.Expires)
	t.text(w.state())
	t.text(ranged(w.Received))
	t.text(ranged(w.Missing))
	return t.endRow()
}

// state returns what happens to further fragments of the datagram.
func (w *Waiting) state() string {
	switch {
	case w.Poisoned:
		return "poisoned:" + w.Reason
	case w.Verdict != "" && w.Reason != "":
		return w.Verdict + ":" + w.Reason
	case w.Verdict != "":
		return w.Verdict
	}
	return "waiting"
}

// rangesInTable is the maximum number of ranges in a cell.
const rangesInTable = 3

func ranged(ranges []string) string {
	if len(ranges) > rangesInTable {
		return strings.Join(ranges[:rangesInTable], ",") + ",…"
	}
	return strings.Join(ranges, ",")
}

// SourceTable writes sources as a table.
type SourceTable struct{ *Table }

// NewSourceTable returns an empty table.
func NewSourceTable(to io.Writer) SourceTable {
	return SourceTable{newTable(to, []column{
		{"FROM", false}, {"SOURCE", false}, {"DATAGRAMS", true}, {"POISONED", true}, {"FRAGMENTS", true}, {"MEMORY", true},
	})}
}

// Add adds a row. It may be written later, by [Table.Flush].
func (t SourceTable) Add(s *Source) error {
	t.text(s.From)
	t.text(s.Src)
	for _, n := range []int{s.Datagrams, s.Poisoned, s.Fragments, s.Memory} {
		t.count(uint64(n))
	}
	return t.endRow()
}
