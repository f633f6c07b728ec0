package rules

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"

	"fragwall/filter"
)

// Changes is what differs between two configurations, of what may change while
// the box runs.
type Changes struct {
	// Added, Removed and Changed are names of rules, in the order of the
	// configuration that has them. A rule is changed where it does something else
	// or matches something else, as also after a change of its sets.
	Added, Removed, Changed []string
	// Moved is set where rules that are in both stand in another order.
	Moved bool
	Sets  []string // names of sets that were added or removed, or hold other addresses; sorted
	Keys  []string // of [policy] and [log]
}

// policyKeys are the keys of what a policy has beside its rules, by the names of
// the fields.
var policyKeys = map[string]string{
	"Default": "default", "ARP": "arp", "NeighborDiscovery": "neighbor_discovery", "NonIP": "non_ip",
	"Stateful": "stateful", "AnyVLANs": "flow_vlans", "LooseTCP": "tcp", "SourceRoute": "source_route",
}

// Changes returns what differs in next.
func (c *Config) Changes(next *Config) Changes {
	changes := changedRules(c.Policy.Rules, next.Policy.Rules)
	for name := range next.sets {
		if before, known := c.sets[name]; !known || before != next.sets[name] {
			changes.Sets = append(changes.Sets, name)
		}
	}
	for name := range c.sets {
		if _, known := next.sets[name]; !known {
			changes.Sets = append(changes.Sets, name)
		}
	}
	slices.Sort(changes.Sets)
	before, after := reflect.ValueOf(*c.Policy), reflect.ValueOf(*next.Policy)
	for i := range before.NumField() {
		if key := policyKeys[before.Type().Field(i).Name]; key != "" && !before.Field(i).Equal(after.Field(i)) {
			changes.Keys = append(changes.Keys, "policy."+key)
		}
	}
	changes.Keys = append(changes.Keys, differing("log", c.Log, next.Log)...)
	return changes
}

// changedRules compares rules by their names.
func changedRules(before, after []filter.Rule) (c Changes) {
	places := make(map[string]int, len(before))
	for i := range before {
		places[before[i].Name] = i
	}
	last := -1 // place of the rule before
	for i := range after {
		r := &after[i]
		place, known := places[r.Name]
		if !known {
			c.Added = append(c.Added, r.Name)
			continue
		}
		if !r.SameAs(&before[place]) {
			c.Changed = append(c.Changed, r.Name)
		}
		c.Moved = c.Moved || place < last
		last = place
		delete(places, r.Name)
	}
	for i := range before {
		if _, gone := places[before[i].Name]; gone {
			c.Removed = append(c.Removed, before[i].Name)
		}
	}
	return c
}

// mostNamed is how many names stand in a list of what changed.
const mostNamed = 10

// named returns names as a list that is not too long.
func named(names []string) string {
	more := len(names) - mostNamed
	quoted := make([]string, min(len(names), mostNamed))
	for i := range quoted {
		quoted[i] = quote(names[i])
	}
	text := strings.Join(quoted, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// each calls f for what changed, under a name of its own.
func (c Changes) each(f func(name, value string)) {
	for _, list := range []struct {
		name  string
		names []string
	}{{"rules added", c.Added}, {"rules removed", c.Removed}, {"rules changed", c.Changed}, {"sets changed", c.Sets}} {
		if len(list.names) > 0 {
			f(list.name, named(list.names))
		}
	}
	if c.Moved {
		f("order of rules", "changed")
	}
	if len(c.Keys) > 0 {
		f("keys changed", strings.Join(c.Keys, ", "))
	}
}

// String tells what changed on one line.
func (c Changes) String() string {
	var parts []string
	c.each(func(name, value string) { parts = append(parts, name+": "+value) })
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(parts, "; ")
}

var setSeed = maphash.MakeSeed()

// digest stands for the addresses of a set, as long as the process lives.
func digest(set filter.AddrSet) uint64 {
	var h maphash.Hash
	h.SetSeed(setSeed)
	for _, r := range set {
		maphash.WriteComparable(&h, r)
	}
	return h.Sum64()
}
