package rules

import (
	"slices"

	"fragwall/filter"
	"fragwall/packet/verdict"
)

// The actions by their names: those of rules, and those for frames without a sender to
// notify.
var (
	ruleActions  = []string{verdict.Accept.String(), verdict.Drop.String(), verdict.Reject.String()}
	frameActions = ruleActions[:2]
)

// The values of the keys that define a flow, the default first.
var (
	tcpModes  = []string{"strict", "loose"}
	flowVLANs = []string{"same", "any"}
)

// readPolicy reads [policy]: the whole policy except its rules.
func readPolicy(t table) *filter.Policy {
	standard := t.field("default").action(verdict.Drop, ruleActions)
	frames := standard
	if frames == verdict.Reject {
		frames = verdict.Drop
	}
	stateful := t.field("stateful").boolean(false)
	return &filter.Policy{
		Default:           standard,
		ARP:               t.field("arp").action(verdict.Accept, frameActions),
		NeighborDiscovery: t.field("neighbor_discovery").action(verdict.Accept, frameActions),
		NonIP:             t.field("non_ip").action(frames, frameActions),
		SourceRoute:       t.field("source_route").action(verdict.Drop, frameActions),
		Stateful:          stateful,
		AnyVLANs:          t.field("flow_vlans").ofFlows(flowVLANs, stateful),
		LooseTCP:          t.field("tcp").ofFlows(tcpModes, stateful),
	}
}

// ofFlows reports whether a field that defines flows has the second of its two values.
// The first is the default.
func (f field) ofFlows(values []string, stateful bool) bool {
	second := f.choice(values[0], values) == values[1]
	if second && !stateful {
		f.note("%q applies to flows, and there are no flows without stateful = true", values[1])
	}
	return second
}

// action returns the field's action, which must be one of acting, or the default.
func (f field) action(standard verdict.Action, acting []string) verdict.Action {
	name := f.choice(standard.String(), acting)
	return verdict.Action(slices.Index([]string{verdict.Drop.String(), verdict.Accept.String(), verdict.Reject.String()}, name))
}
