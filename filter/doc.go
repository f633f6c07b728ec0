// Package filter compiles a policy and judges datagrams by it.
//
// [Compile] makes a [Table] of a [Policy] in two steps:
//
//  1. For each field, it divides all values into classes that no rule distinguishes
//     (partition.go, dimension.go). A prefix table finds the class of an address
//     (address.go), an array that of any other value.
//  2. It grows a tree over the classes, which finds the first matching rule (grow.go).
//
// [Table.Judge] takes a decoded packet, whole or reassembled, and the side that it arrived on.
// It returns a [Verdict]: the action, the reason if the datagram does not pass, the rule that
// decided, and whether the verdict holds for all datagrams of the flow ([Cacheable]). It
// finds the rule (match.go, tree.go), checks the rule's limit (limit.go), and counts. With a
// stateful policy, it looks up the flow first (track.go, package flow).
//
// The rules of a Table are immutable. Any number of goroutines may judge by it, and a reload
// replaces it by another one. Without state, judging takes no lock and allocates nothing,
// and it reads the clock only if a rule with a limit matches. The flows of a stateful policy
// outlive the Table. They are divided into shards with one lock each.
//
// The counters of rules and the fill of their limits outlive a reload, and another process
// can take them over (save.go).
//
// The package knows neither TOML nor devices.
package filter
