package selector

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Selector holds the text of each flag that was given, by flag name. It selects what matches
// all of them. An empty Selector selects everything.
type Selector map[string]string

// field is a flag and the meaning of its text.
type field struct {
	name  string
	usage string
	set   func(f *Filter, text string) error
}

var fields = []field{
	{"proto", "only this protocol, a `name or number`", func(f *Filter, text string) error {
		return number(text, rules.ParseProtocol, &f.protocol)
	}},
	{"host", "only from or to these hosts, an `address or prefix`", func(f *Filter, text string) error { return hosts(text, &f.host) }},
	{"src", "only from these hosts, an `address or prefix`", func(f *Filter, text string) error { return hosts(text, &f.src) }},
	{"dst", "only to these hosts, an `address or prefix`", func(f *Filter, text string) error { return hosts(text, &f.dst) }},
	{"port", "only from or to this `port`", func(f *Filter, text string) error { return number(text, rules.ParsePort, &f.port) }},
	{"sport", "only from this `port`", func(f *Filter, text string) error { return number(text, rules.ParsePort, &f.srcPort) }},
	{"dport", "only to this `port`", func(f *Filter, text string) error { return number(text, rules.ParsePort, &f.dstPort) }},
	{"vlan", "only in this VLAN, a `number` or \"none\"", func(f *Filter, text string) error {
		return number(text, rules.ParseVLAN, &f.vlan)
	}},
	{"from", "only from this side: `inside|outside`", func(f *Filter, text string) error {
		for side := range verdict.Side(verdict.Sides) {
			if text == side.String() {
				f.from = &side
				return nil
			}
		}
		return fmt.Errorf("%q is not a side; want \"inside\" or \"outside\"", text)
	}},
}

// number parses a text by a parser of numbers.
func number(text string, scale func(string) (uint16, error), to **uint16) error {
	n, err := scale(text)
	*to = &n
	return err
}

// hosts parses a text with addresses.
func hosts(text string, to **filter.Range[netip.Addr]) error {
	r, err := rules.ParseAddresses(text)
	*to = &r
	return err
}

// Flags adds the flags to a command. Parsing the command line fills the returned selector, and
// fails for a text that [Selector.Filter] would reject.
func Flags(c *cobra.Command) Selector {
	s := Selector{}
	for _, f := range fields {
		c.Flags().Var(&value{s, f}, f.name, f.usage)
	}
	return s
}

// value is the value of a flag (pflag.Value).
type value struct {
	in    Selector
	field field
}

// String returns the text, or "" if the flag was not given.
func (v *value) String() string { return v.in[v.field.name] }

// Type returns the placeholder in the usage if the usage text names none.
func (v *value) Type() string { return "text" }

// Set sets the text. It returns an error if the text is invalid.
func (v *value) Set(text string) error {
	v.in[v.field.name] = text
	return v.field.set(new(Filter), text)
}

// String returns the selector as flags on a command line, in a fixed order.
func (s Selector) String() string {
	var words []string
	for _, f := range fields {
		if text, given := s[f.name]; given {
			words = append(words, "--"+f.name+" "+text)
		}
	}
	return strings.Join(words, " ")
}

// Filter returns the filter of the selector. Errors name the flag.
func (s Selector) Filter() (*Filter, error) {
	f := new(Filter)
	for _, name := range slices.Sorted(maps.Keys(s)) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--%s: unknown selector", name)
		}
		if err := fields[i].set(f, s[name]); err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
	}
	return f, nil
}

// Filter matches the tuples that a selector selects. A nil field matches anything.
type Filter struct {
	protocol               *uint16
	host, src, dst         *filter.Range[netip.Addr]
	port, srcPort, dstPort *uint16
	vlan                   *uint16
	from                   *verdict.Side
}

// InAnyVLAN returns the filter without its condition on the VLAN.
func (f *Filter) InAnyVLAN() *Filter {
	without := *f
	without.vlan = nil
	return &without
}

// Tuple has the fields that a filter matches. A condition on a field that the packet does not
// have never matches.
type Tuple struct {
	From             verdict.Side // ingress side
	VLAN             uint16       // outermost VLAN ID, 0 for none
	Protocol         uint8
	HasProtocol      bool // whether the packet is IP and its upper-layer protocol is known
	Src, Dst         netip.Addr
	HasPorts         bool
	SrcPort, DstPort uint16
}

// TupleOf returns the tuple of a packet that arrived on a side.
func TupleOf(p *packet.Parsed, from verdict.Side) Tuple {
	return Tuple{
		From: from, VLAN: p.VLANs().ID(),
		Protocol: p.Protocol, HasProtocol: p.Upper > 0, // not known for an IPv6 fragment other than the first
		Src: p.Src, Dst: p.Dst,
		HasPorts: p.Transport == packet.Ports, SrcPort: p.SrcPort, DstPort: p.DstPort,
	}
}

// Matches reports whether all conditions of the filter match.
func (f *Filter) Matches(t *Tuple) bool {
	switch {
	case f.from != nil && *f.from != t.From,
		f.vlan != nil && *f.vlan != t.VLAN,
		f.protocol != nil && (!t.HasProtocol || *f.protocol != uint16(t.Protocol)),
		f.src != nil && !contains(f.src, t.Src),
		f.dst != nil && !contains(f.dst, t.Dst),
		f.host != nil && !contains(f.host, t.Src) && !contains(f.host, t.Dst):
		return false
	case f.port == nil && f.srcPort == nil && f.dstPort == nil:
		return true
	}
	return t.HasPorts &&
		(f.port == nil || *f.port == t.SrcPort || *f.port == t.DstPort) &&
		(f.srcPort == nil || *f.srcPort == t.SrcPort) &&
		(f.dstPort == nil || *f.dstPort == t.DstPort)
}

// contains reports whether an address is in a range. An invalid address is in none.
func contains(r *filter.Range[netip.Addr], a netip.Addr) bool {
	return r.Lo.BitLen() == a.BitLen() && r.Lo.Compare(a) <= 0 && a.Compare(r.Hi) <= 0
}
