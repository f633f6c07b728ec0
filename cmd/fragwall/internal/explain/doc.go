// Package explain shows what a policy decides on a datagram, and why.
//
//	rules.Question ──► packet.View ──► Policy.Ask ──► Answer ──► text or JSON
//	rules.Expectation ────────────────────┘              └─────► Unmet
//	                        AskLive ──► LiveAnswer
//
// The inputs are the configuration and a datagram, which the flags of "explain" or an expectation
// describe. A [Policy] assumes that no limit is reached and that no flow exists. [AskLive] reads
// the limits and flows of a running box, and its fast path, and changes none of them. The package
// keeps no state between policies.
//
// Of fragwall's packages, it imports listing and terminal (below cmd/fragwall/internal), rules, filter,
// filter/flow, packet, packet/verdict and wire.
package explain
