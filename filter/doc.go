// Package filter holds the compiled policy and judges datagrams by it.
//
// In comes a decoded packet, whole or put together from fragments, and the
// side it came in by; out goes a [Verdict]: the action, the reason where it
// is a drop, and the number of the rule that decided ([Table.Rule]).
//
// [Compile] makes a [Table] of a [Policy]:
//
//  1. divide the values of each field into classes that no rule tells apart
//     (partition.go, dimension.go), and make what finds a value's class: a
//     prefix table of addresses (address.go), a list of all others
//  2. grow a tree over the classes that finds the first rule (grow.go)
//
// and [Table.Judge] goes the same way with a datagram (match.go, tree.go),
// asks the rule's limit (limit.go), and counts. Where the policy is stateful,
// what belongs to a known flow passes before any rule (track.go, package flow). A
// verdict says whether it holds for all datagrams of its flow ([Cacheable]).
//
// A Table's rules are immutable, so any number of goroutines may judge by it
// at once, and a reload swaps one for another. Judging allocates nothing, takes
// no lock, and asks for the time only where a rule with a limit matches. The
// flows of a stateful policy outlive it; they know the time, and are in shards
// with a lock each, which both directions take for a moment.
//
// Of ours it imports packet, packet/verdict and filter/flow. It knows neither TOML
// nor devices.
package filter
