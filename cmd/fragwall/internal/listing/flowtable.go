package listing

import (
	"io"
	"net/netip"
	"strconv"

	"fragwall/cmd/fragwall/internal/terminal"
)

// FlowTable writes flows as a table.
type FlowTable struct {
	*Table
	rules map[string]string // printable rule names, by name
}

// NewFlowTable returns an empty table.
func NewFlowTable(to io.Writer) FlowTable {
	return FlowTable{rules: make(map[string]string), Table: newTable(to, []column{
		{"PROTO", false}, {"FROM", false}, {"SOURCE", false}, {"DESTINATION", false}, {"VLAN", false}, {"STATE", false},
		{"AGE", true}, {"IDLE", true}, {"EXPIRES", true},
		{"PACKETS", true}, {"BYTES", true}, {"REPLY PACKETS", true}, {"REPLY BYTES", true},
		{"FAST", false}, {"RULE", false},
	})}
}

// Add adds a row. It may be written later, by [Table.Flush].
func (t FlowTable) Add(f *Flow) error {
	t.text(f.Protocol)
	t.text(f.From)
	t.host(f.Src, f.SrcPort)
	t.destination(f)
	t.vlans(f.VLANs)
	t.text(f.StateText())
	t.duration(f.Age)
	t.duration(f.Idle)
	t.duration(f.Expires)
	t.count(f.OriginalPackets)
	t.count(f.OriginalBytes)
	t.count(f.ReplyPackets)
	t.count(f.ReplyBytes)
	t.yes(f.FastPath)
	rule, known := t.rules[f.Rule]
	if !known {
		rule = terminal.Printable(f.Rule)
		t.rules[f.Rule] = rule
	}
	t.text(rule)
	return t.endRow()
}

// yes writes "yes" or "no".
func (t *Table) yes(is bool) {
	if is {
		t.text("yes")
		return
	}
	t.text("no")
}

// host writes an address, with its port if there is one.
func (t *Table) host(a netip.Addr, port *uint16) {
	if port == nil {
		t.cells = a.AppendTo(t.cells)
	} else {
		t.cells = netip.AddrPortFrom(a, *port).AppendTo(t.cells)
	}
	t.cell()
}

// destination writes the destination of a flow. For ICMP queries it includes type and
// identifier, which identify the flow as ports do.
func (t *Table) destination(f *Flow) {
	if f.ICMPType == nil || f.ICMPID == nil {
		t.host(f.Dst, f.DstPort)
		return
	}
	t.cells = f.Dst.AppendTo(t.cells)
	t.cells = strconv.AppendUint(append(t.cells, ",type="...), uint64(*f.ICMPType), 10)
	t.cells = strconv.AppendUint(append(t.cells, ",id="...), uint64(*f.ICMPID), 10)
	t.cell()
}

func (t *Table) vlans(ids []uint16) {
	for i, id := range ids {
		if i > 0 {
			t.cells = append(t.cells, ',')
		}
		t.cells = strconv.AppendUint(t.cells, uint64(id), 10)
	}
	t.cell()
}

// StateText returns the state of a flow, with the flags that conntrack(8) shows beside it,
// UNREPLIED or ASSURED, and DENIED.
func (r *Flow) StateText() string {
	text, mark := r.State, ""
	switch {
	case !r.Replied:
		mark = stateUnreplied
	case r.Assured:
		mark = stateAssured
	}
	if mark != "" && mark != text {
		text += "," + mark
	}
	if r.Denied {
		text += ",DENIED"
	}
	return text
}
