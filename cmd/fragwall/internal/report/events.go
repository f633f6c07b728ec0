package report

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/cmd/fragwall/internal/terminal"
)

// shownEvents is the maximum number of events below the tables. --json shows all of them.
const shownEvents = 10

// writeEvents writes the latest events, newest first.
func writeEvents(to io.Writer, r *Report) {
	if len(r.Events) == 0 {
		return
	}
	fmt.Fprintf(to, "\nlast events (%s logged, %s suppressed)\n", grouped(r.EventsLogged), grouped(r.EventsSuppressed))
	for _, e := range r.Events[:min(len(r.Events), shownEvents)] {
		fmt.Fprintln(to, describeEvent(&e))
	}
}

// describeEvent describes an event on one line.
func describeEvent(e *record.Event) string {
	if e.Link != "" {
		return fmt.Sprintf("%s link of %s (%s) %s", e.Time.Local().Format(time.TimeOnly), terminal.Printable(e.From), terminal.Printable(e.Device), terminal.Printable(e.Link))
	}
	text := fmt.Sprintf("%s %s from %s", e.Time.Local().Format(time.TimeOnly), terminal.Printable(e.Verdict), terminal.Printable(e.From))
	for _, protocol := range []string{e.EtherType, e.Protocol} {
		if protocol != "" {
			text += " " + terminal.Printable(protocol)
		}
	}
	if e.Src.IsValid() {
		text += fmt.Sprintf(" %s > %s", endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort))
	}
	if e.ICMPType.Set && e.ICMPCode.Set {
		text += fmt.Sprintf(", type %d, code %d", e.ICMPType.Value, e.ICMPCode.Value)
	}
	for _, id := range e.VLANs {
		text += fmt.Sprintf(", vlan %d", id)
	}
	if e.Fragments > 0 {
		text += fmt.Sprintf(", fragments: %d", e.Fragments)
	}
	text += describeFragment(e)
	text += ", " + terminal.Count(e.Bytes, "byte")
	if e.Reason != "" {
		text += ", " + terminal.Printable(e.Reason)
	}
	if e.MTU > 0 {
		text += fmt.Sprintf(" (%d of %d bytes)", e.Length, e.MTU)
	}
	if e.Rule != "" {
		text += ", rule " + strconv.QuoteToGraphic(e.Rule)
	}
	if e.OverLimit != "" {
		text += ", over the limit of " + strconv.QuoteToGraphic(e.OverLimit)
	}
	if e.Background != "" {
		text += ", background: " + terminal.Printable(e.Background)
	}
	return text
}

// describeFragment describes the fragment fields and the missing ranges.
func describeFragment(e *record.Event) (text string) {
	if e.Identification.Set {
		text += fmt.Sprintf(", id %#x", e.Identification.Value)
	}
	if e.Offset.Set {
		text += fmt.Sprintf(", offset %d", e.Offset.Value)
	}
	if e.MoreFragments.Value {
		text += ", more fragments"
	}
	if len(e.Missing) > 0 {
		text += ", missing bytes " + terminal.Printable(strings.Join(e.Missing, " "))
	}
	return text
}

// endpoint returns an address, with its port if it has one.
func endpoint(address netip.Addr, port record.Optional[uint16]) string {
	text := terminal.Printable(address.String()) // a zone may contain any characters
	if !port.Set {
		return text
	}
	return net.JoinHostPort(text, strconv.Itoa(int(port.Value)))
}
