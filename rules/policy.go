package rules

import "fragwall/filter"

// The actions by their names, and those of the contract that don't act.
var (
	actions      = []string{filter.Accept.String(), filter.Drop.String()}
	laterActions = []string{"reject"}
)

// readPolicy reads [policy], all of a policy but its rules.
func readPolicy(t table) *filter.Policy {
	if t.field("stateful").boolean(false) {
		t.field("stateful").fail("true is not supported yet; use false")
	}
	standard := t.field("default").action(filter.Drop, laterActions...)
	return &filter.Policy{
		Default:           standard,
		ARP:               t.field("arp").action(filter.Accept),
		NeighborDiscovery: t.field("neighbor_discovery").action(filter.Accept),
		NonIP:             t.field("non_ip").action(standard),
	}
}

// action returns the field's action, or the default.
func (f field) action(standard filter.Action, notYet ...string) filter.Action {
	if f.choice(standard.String(), actions, notYet...) == filter.Accept.String() {
		return filter.Accept
	}
	return filter.Drop
}
