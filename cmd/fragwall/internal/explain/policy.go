package explain

import (
	"fmt"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Policy answers questions according to a configuration. It is safe for concurrent use.
type Policy struct {
	config *rules.Config
	table  *filter.Table
}

// NewPolicy returns the policy of a configuration.
func NewPolicy(config *rules.Config) *Policy {
	return &Policy{config: config, table: filter.Compile(config.Policy, nil)}
}

// Ask returns the decision of the policy on a datagram. Limits count as not reached.
func (p *Policy) Ask(d *packet.View) Answer {
	a, _ := p.ask(d, func() time.Duration { return 0 })
	return a
}

// ask returns the decision of the policy at a time. The outlook is empty if neither rules nor
// flows take part in the decision.
func (p *Policy) ask(d *packet.View, now filter.Clock) (Answer, filter.Outlook) {
	o := p.table.Outlook(d, now)
	a := newAnswer(d)
	a.File = p.config.File
	switch settings := p.config.Policy; {
	case d.SourceRoute && settings.SourceRoute != verdict.Accept:
		a.decide(verdict.Drop, verdict.PolicySourceRoute, keySourceRoute)
	case d.Fragmented && p.config.Fragments.Mode == packet.ModeDrop:
		a.decide(verdict.Drop, verdict.FragmentMode, keyMode)
	case d.Fragmented && d.NeighborDiscovery():
		a.decide(verdict.Drop, verdict.FragmentedNeighborDiscovery, "")
	case d.NeighborDiscovery():
		a.decide(o.Verdict.Action, o.Verdict.Reason, keyNeighborDiscovery)
	default:
		p.byRules(&a, d, &o)
		return a, o
	}
	return a, filter.Outlook{}
}

// byRules sets the decision of the rules, the default, or the flow of the datagram.
func (p *Policy) byRules(a *Answer, d *packet.View, o *filter.Outlook) {
	v := o.Verdict
	if rule := p.table.Rule(v.Rule); rule == nil {
		a.decide(v.Action, v.Reason, keyDefault)
	} else {
		a.decide(v.Action, v.Reason, "")
		a.Rule, a.Line = rule.Name, rule.Line
		if rule.Limit != (filter.Rate{}) {
			a.Limit = rule.Limit.String()
		}
	}
	for _, n := range p.table.Near(d, v.Rule) {
		a.Near = append(a.Near, Near{Rule: n.Rule.Name, Line: n.Rule.Line, Field: n.Field})
	}
	if p.config.Policy.Stateful && v.Action != verdict.Accept && o.Flow == nil {
		a.Notes = append(a.Notes, unlessFlow)
	}
	rest := map[packet.Mode]string{packet.ModeFirstAcceptRest: "pass without a verdict", packet.ModeFirstDropRest: "are dropped"}[p.config.Fragments.Mode]
	if d.Fragmented && rest != "" {
		a.Notes = append(a.Notes, fmt.Sprintf("its first fragment alone: the others %s (%s, %s)", rest, keyMode, p.config.File))
	}
}

// unlessFlow is a note about a datagram that belongs to no known flow.
const unlessFlow = "unless it belongs to a flow that was accepted (policy.stateful)"
