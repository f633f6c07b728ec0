package rules

import (
	"slices"

	"fragwall/filter"
)

// The actions by their names: what a rule may do, and what may become of
// frames that have nobody to tell.
var (
	ruleActions  = []string{filter.Accept.String(), filter.Drop.String(), filter.Reject.String()}
	frameActions = ruleActions[:2]
)

// readPolicy reads [policy], all of a policy but its rules.
func readPolicy(t table) *filter.Policy {
	standard := t.field("default").action(filter.Drop, ruleActions)
	frames := standard
	if frames == filter.Reject {
		frames = filter.Drop
	}
	return &filter.Policy{
		Default:           standard,
		ARP:               t.field("arp").action(filter.Accept, frameActions),
		NeighborDiscovery: t.field("neighbor_discovery").action(filter.Accept, frameActions),
		NonIP:             t.field("non_ip").action(frames, frameActions),
		Stateful:          t.field("stateful").boolean(false),
	}
}

// action returns the field's action, one of acting, or the default.
func (f field) action(standard filter.Action, acting []string) filter.Action {
	name := f.choice(standard.String(), acting)
	return filter.Action(slices.Index([]string{filter.Drop.String(), filter.Accept.String(), filter.Reject.String()}, name))
}
