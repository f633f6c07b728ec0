package rules

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"

	"fragwall/filter"
)

// Changes are the differences between two configurations, of keys that may change at run
// time.
type Changes struct {
	// Added, Removed and Changed are names of rules, in the order of the configuration
	// that has them. A rule is changed if its action or its matches are different, also
	// because of its sets.
	Added, Removed, Changed []string
	// Moved is set if rules of both configurations are in another order.
	Moved bool
	Sets  []string // names of sets that were added or removed, or hold other addresses; sorted
	Keys  []string // of [policy] and [log]
}

// policyKeys are the keys of [policy], by the names of the fields.
var policyKeys = map[string]string{
	"Default": "default", "ARP": "arp", "NeighborDiscovery": "neighbor_discovery", "NonIP": "non_ip",
	"Stateful": "stateful", "AnyVLANs": "flow_vlans", "LooseTCP": "tcp", "SourceRoute": "source_route",
}

// Changes returns the differences between c and next.
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
	last := -1 // index of the previous rule
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

// mostNamed is the maximum number of names in a list of changes.
const mostNamed = 10

// named returns the names as a list of limited length.
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

// each calls f for each kind of change, with its name.
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

// String returns the changes on one line.
func (c Changes) String() string {
	var parts []string
	c.each(func(name, value string) { parts = append(parts, name+": "+value) })
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(parts, "; ")
}

var setSeed = maphash.MakeSeed()

// digest returns a hash of a set's addresses, with a key of the process.
func digest(set filter.AddrSet) uint64 {
	var h maphash.Hash
	h.SetSeed(setSeed)
	for _, r := range set {
		maphash.WriteComparable(&h, r)
	}
	return h.Sum64()
}
