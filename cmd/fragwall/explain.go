package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// question is the datagram that explain is asked about, as its flags say it.
type question struct {
	from, protocol, src, dst         string
	sport, dport, icmpType, icmpCode string
	vlan                             string
	fragmented, sourceRoute          bool
}

func newExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain -c FILE --from inside --proto udp --src A --dst B",
		Short: "Say which rule decides on a datagram, and why",
		Long: `Say which rule decides on a datagram, its line in the file, and the action;
and which rules before it would have matched but for one field. The policy
is the one that run would use, and nothing of its state: limits count as not
reached, and no flow is known.`,
		Args: usageArgs(noArguments),
	}
	path := configFlag(c)
	var q question
	flags := c.Flags()
	flags.StringVar(&q.from, "from", "", "side that it comes in by: `inside|outside` (required)")
	flags.StringVar(&q.protocol, "proto", "", "protocol, a `name or number` (required)")
	flags.StringVar(&q.src, "src", "", "source `address` (required)")
	flags.StringVar(&q.dst, "dst", "", "destination `address` (required)")
	flags.StringVar(&q.sport, "sport", "49152", "source `port`, of a protocol with ports")
	flags.StringVar(&q.dport, "dport", "0", "destination `port`, of a protocol with ports")
	flags.StringVar(&q.icmpType, "icmp-type", "echo-request", "ICMP type, a `name or number`")
	flags.StringVar(&q.icmpCode, "icmp-code", "0", "ICMP code, a `number`")
	flags.StringVar(&q.vlan, "vlan", "none", "VLAN, a `number` or \"none\"")
	flags.BoolVar(&q.fragmented, "fragmented", false, "it came in fragments")
	flags.BoolVar(&q.sourceRoute, "source-route", false, "it has an IPv4 source route or an IPv6 routing header with segments left")
	c.RunE = func(c *cobra.Command, _ []string) error {
		d, err := q.datagram(c.Flags().Changed)
		if err != nil {
			return exit.Usagef("%w; see %q", err, c.CommandPath()+" --help")
		}
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		return explain(c.OutOrStdout(), config, d)
	}
	return c
}

// datagram returns what the flags describe.
func (q *question) datagram(given func(flag string) bool) (*packet.View, error) {
	for _, flag := range []string{"from", "proto", "src", "dst"} {
		if !given(flag) {
			return nil, fmt.Errorf("--%s is missing", flag)
		}
	}
	// No other hop limit is neighbour discovery's (RFC 4861 §7.1), and to all
	// else it makes no difference.
	p := &packet.Parsed{Fragmented: q.fragmented, SourceRoute: q.sourceRoute, HopLimit: 255}
	d := &packet.View{Parsed: p}
	switch q.from {
	case verdict.Inside.String():
	case verdict.Outside.String():
		d.From = verdict.Outside
	default:
		return nil, fmt.Errorf("--from: %q is no side; want \"inside\" or \"outside\"", q.from)
	}
	var errs []error
	number := func(flag, text string, scale func(string) (uint16, error)) uint16 {
		n, err := scale(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return n
	}
	address := func(flag, text string) netip.Addr {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--%s: %q is no address", flag, text))
		case a.Zone() != "" || a.Is4In6():
			errs = append(errs, fmt.Errorf("--%s: %q is not what packets carry; did you mean %q?", flag, text, a.WithZone("").Unmap()))
		}
		return a
	}
	p.Src, p.Dst = address("src", q.src), address("dst", q.dst)
	p.Protocol = uint8(number("proto", q.protocol, rules.ParseProtocol))
	if vid := number("vlan", q.vlan, rules.ParseVLAN); vid != 0 {
		p.TagCount, p.Tags[0] = 1, packet.Tag{TPID: 0x8100, TCI: vid}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if p.Src.Is4() != p.Dst.Is4() {
		return nil, fmt.Errorf("--src %s and --dst %s are of two families", p.Src, p.Dst)
	}
	if p.Kind = packet.IPv6; p.Src.Is4() {
		p.Kind = packet.IPv4
	}
	q.transport(p, number)
	if err := checkTransport(p, given); err != nil {
		return nil, err
	}
	return d, errors.Join(errs...)
}

// transport fills in the fields of the transport header.
func (q *question) transport(p *packet.Parsed, number func(flag, text string, scale func(string) (uint16, error)) uint16) {
	switch {
	case packet.HasPorts(p.Protocol):
		p.Transport = packet.Ports
		p.SrcPort = number("sport", q.sport, rules.ParsePort)
		p.DstPort = number("dport", q.dport, rules.ParsePort)
	case p.Kind == packet.IPv4 && p.Protocol == packet.ProtocolICMP, p.Kind == packet.IPv6 && p.Protocol == packet.ProtocolICMPv6:
		p.Transport = packet.ICMP
		types := rules.ParseICMPType
		if p.Kind == packet.IPv6 {
			types = rules.ParseICMPv6Type
		}
		p.ICMPType = uint8(number("icmp-type", q.icmpType, types))
		p.ICMPCode = uint8(number("icmp-code", q.icmpCode, rules.ParseICMPCode))
	}
}

// checkTransport refuses fields that the protocol doesn't have.
func checkTransport(p *packet.Parsed, given func(flag string) bool) error {
	for _, flag := range []string{"sport", "dport"} {
		if given(flag) && p.Transport != packet.Ports {
			return fmt.Errorf("--%s: protocol %d has no ports", flag, p.Protocol)
		}
	}
	for _, flag := range []string{"icmp-type", "icmp-code"} {
		if given(flag) && p.Transport != packet.ICMP {
			return fmt.Errorf("--%s: protocol %d between addresses of this family is no ICMP", flag, p.Protocol)
		}
	}
	return nil
}

// explain prints the verdict on a datagram.
func explain(w io.Writer, config *rules.Config, d *packet.View) error {
	var text strings.Builder
	fmt.Fprintf(&text, "from %s: %s\n", d.From, describe(d.Parsed))
	switch {
	case d.SourceRoute && config.Policy.SourceRoute != verdict.Accept:
		fmt.Fprintf(&text, "drop: policy.source_route (%s) decides, before any rule\n", config.File)
	case d.Fragmented && config.Fragments.Mode == packet.ModeDrop:
		fmt.Fprintf(&text, "drop: fragments.mode (%s) lets no fragment pass\n", config.File)
	case d.Fragmented && d.NeighborDiscovery():
		text.WriteString("drop: neighbour discovery never passes in fragments (RFC 6980)\n")
	case d.NeighborDiscovery():
		fmt.Fprintf(&text, "%s: policy.neighbor_discovery (%s) decides, before any rule\n", config.Policy.NeighborDiscovery, config.File)
	default:
		explainRules(&text, config, d)
		if d.Fragmented {
			text.WriteString(explainRest(config))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// explainRest says what becomes of a datagram's other fragments in the modes
// where that is not what becomes of the first.
func explainRest(config *rules.Config) string {
	rest := "pass unjudged"
	switch config.Fragments.Mode {
	case packet.ModeFirstAcceptRest:
	case packet.ModeFirstDropRest:
		rest = "are dropped"
	default:
		return ""
	}
	return fmt.Sprintf("  its first fragment alone: the others %s (fragments.mode, %s)\n", rest, config.File)
}

// explainRules prints the verdict of the rules.
func explainRules(w io.Writer, config *rules.Config, d *packet.View) {
	table := filter.Compile(config.Policy, nil)
	v := table.Judge(d, func() time.Duration { return 0 })
	if rule := table.Rule(v.Rule); rule == nil {
		fmt.Fprintf(w, "%s: no rule matches, so policy.default (%s) decides\n", v.Action, config.File)
	} else {
		fmt.Fprintf(w, "%s: rule %q (%s:%d) is the first that matches\n", v.Action, rule.Name, config.File, rule.Line)
		if rule.Limit != (filter.Rate{}) {
			fmt.Fprintf(w, "  up to %s; beyond that, the rules after it decide\n", rule.Limit)
		}
	}
	for _, n := range table.Near(d, v.Rule) {
		fmt.Fprintf(w, "  not rule %q (%s:%d): all matches but %s\n", n.Rule.Name, config.File, n.Rule.Line, n.Field)
	}
	if config.Policy.Stateful && v.Action != verdict.Accept {
		fmt.Fprintln(w, "  unless it belongs to a flow that was accepted (policy.stateful)")
	}
}
