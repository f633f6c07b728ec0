package explain

import (
	"fmt"
	"io"
	"strings"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Write writes what the policy of a configuration decides on a datagram, and why.
func Write(w io.Writer, config *rules.Config, d *packet.View) error {
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
		writeRules(&text, config, d)
		if d.Fragmented {
			text.WriteString(others(config))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// others says what becomes of a datagram's other fragments in the modes
// where that is not what becomes of the first.
func others(config *rules.Config) string {
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

// writeRules writes the verdict of the rules.
func writeRules(w io.Writer, config *rules.Config, d *packet.View) {
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
