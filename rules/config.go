package rules

import (
	"fmt"
	"time"

	"fragwall/filter"
	"fragwall/packet"
)

// Config is a valid configuration.
type Config struct {
	File            string // that it was read from
	Inside, Outside Interface
	Fragments       Fragments
	Policy          *filter.Policy
	Notes           []Note // by line; what a user may want to know of a valid file
}

// Summary says in a few words what the configuration does.
func (c *Config) Summary() string {
	noun := "rules"
	if len(c.Policy.Rules) == 1 {
		noun = "rule"
	}
	return fmt.Sprintf("%d %s, fragments %s, default %s", len(c.Policy.Rules), noun, c.Fragments.Mode, c.Policy.Default)
}

// Shadows returns a note for each rule that never decides, since one in front
// of it matches all that it would.
func (c *Config) Shadows() []Note {
	table := filter.Compile(c.Policy, nil)
	var notes []Note
	for i := range c.Policy.Rules {
		if by := table.ShadowOf(i); by != nil {
			r := &c.Policy.Rules[i]
			notes = append(notes, Note{File: c.File, Line: r.Line, Text: fmt.Sprintf(
				"rule %q never decides: rule %q at line %d matches all that it would", r.Name, by.Name, by.Line)})
		}
	}
	return notes
}

// Interface is one side of the wire: its devices. No two devices of a
// configuration have the same name.
type Interface struct {
	TAP     string
	NIC     string // joined to the TAP; "" if nothing is
	Bridge  string // that joins them; "" if there is no NIC
	MTU     int    // of the TAP, in bytes, without the Ethernet header
	Queues  int    // of the TAP; 0: one a CPU
	Offload bool   // whether the TAP's frames carry virtio-net headers
}

// Fragments says what happens to fragments, and what those in waiting may
// cost, both directions together.
type Fragments struct {
	Mode packet.Mode
	Emit packet.Emit // in the mode that puts datagrams together
	// TimeoutIPv4 and TimeoutIPv6 are how long a datagram may take to become
	// whole, from its first fragment on.
	TimeoutIPv4, TimeoutIPv6 time.Duration
	Memory                   int64 // in bytes
	MaxFragments             int   // a datagram
	MaxDatagrams             int   // in waiting
}

// Note is a remark on a valid configuration.
type Note struct {
	File string
	Line int
	Text string
}

// String returns the note on one line, with its place before it.
func (n Note) String() string { return fmt.Sprintf("%s:%d: note: %s", n.File, n.Line, n.Text) }
