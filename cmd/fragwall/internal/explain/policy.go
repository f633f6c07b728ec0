package explain

import (
	"fmt"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Policy answers questions by a configuration. Only one goroutine may use it.
type Policy struct {
	config *rules.Config
	table  *filter.Table
	asked  time.Duration // clock of the limits
}

// NewPolicy returns the policy of a configuration.
func NewPolicy(config *rules.Config) *Policy {
	return &Policy{config: config, table: filter.Compile(config.Policy, nil)}
}

// Ask returns what the policy decides on a datagram. Limits count as not reached.
func (p *Policy) Ask(d *packet.View) Answer {
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
		v := p.judge(d)
		a.decide(v.Action, v.Reason, keyNeighborDiscovery)
	default:
		p.byRules(&a, d)
	}
	return a
}

// judge returns the verdict of the compiled policy. Each question is asked an hour
// after the one before, when no limit is reached any more.
func (p *Policy) judge(d *packet.View) filter.Verdict {
	p.asked += time.Hour
	return p.table.Judge(d, func() time.Duration { return p.asked })
}

// byRules answers by the rules and the default.
func (p *Policy) byRules(a *Answer, d *packet.View) {
	v := p.judge(d)
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
	if p.config.Policy.Stateful && v.Action != verdict.Accept {
		a.Notes = append(a.Notes, "unless it belongs to a flow that was accepted (policy.stateful)")
	}
	rest := map[packet.Mode]string{packet.ModeFirstAcceptRest: "pass unjudged", packet.ModeFirstDropRest: "are dropped"}[p.config.Fragments.Mode]
	if d.Fragmented && rest != "" {
		a.Notes = append(a.Notes, fmt.Sprintf("its first fragment alone: the others %s (%s, %s)", rest, keyMode, p.config.File))
	}
}
