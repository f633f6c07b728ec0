package report

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/terminal"
)

// shownEvents is how many of the last events stand below the tables; --json has
// all.
const shownEvents = 10

// writeEvents writes the last events, newest first.
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
func describeEvent(e *events.Event) string {
	if e.Link != "" {
		return fmt.Sprintf("%s link of %s (%s) %s", e.Time.Local().Format(time.TimeOnly), terminal.Printable(e.From), terminal.Printable(e.Device), terminal.Printable(e.Link))
	}
	text := fmt.Sprintf("%s %s from %s", e.Time.Local().Format(time.TimeOnly), terminal.Printable(e.Action), terminal.Printable(e.From))
	if e.Protocol != "" {
		text += " " + terminal.Printable(e.Protocol)
	}
	if e.Src != "" {
		text += fmt.Sprintf(" %s > %s", endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort))
	}
	if e.ICMPType != nil && e.ICMPCode != nil {
		text += fmt.Sprintf(", type %d, code %d", *e.ICMPType, *e.ICMPCode)
	}
	for _, id := range e.VLANs {
		text += fmt.Sprintf(", vlan %d", id)
	}
	if e.Fragments > 0 {
		text += fmt.Sprintf(", fragments: %d", e.Fragments)
	}
	text += describeFragment(e)
	text += fmt.Sprintf(", %d bytes", e.Bytes)
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

// describeFragment says what fragments say of themselves, and what of their
// datagram is missing.
func describeFragment(e *events.Event) (text string) {
	if e.Identification != nil {
		text += fmt.Sprintf(", id %#x", *e.Identification)
	}
	if e.Offset != nil {
		text += fmt.Sprintf(", offset %d", *e.Offset)
	}
	if e.MoreFragments != nil && *e.MoreFragments {
		text += ", more fragments"
	}
	if len(e.Missing) > 0 {
		text += ", missing bytes " + terminal.Printable(strings.Join(e.Missing, " "))
	}
	return text
}

// endpoint returns an address with its port, where it has one.
func endpoint(address string, port *uint16) string {
	if port == nil {
		return terminal.Printable(address)
	}
	return net.JoinHostPort(terminal.Printable(address), strconv.Itoa(int(*port)))
}
