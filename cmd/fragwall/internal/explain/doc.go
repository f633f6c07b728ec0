// Package explain says what a policy decides on a datagram, and why.
//
//	rules.Question ──► packet.View ──► Policy.Ask ──► Answer ──► text or JSON
//	rules.Expectation ────────────────────┘              └─────► Unmet
//	                        AskLive ──► LiveAnswer
//
// In come the configuration and a datagram, as the flags of "explain" or an
// expectation describe it. To a [Policy] no limit is reached, and no flow is known;
// [AskLive] looks at those of a running box, and at its fast path, and changes nothing
// of them. The package keeps nothing between policies.
//
// Of ours it imports listing, below cmd/fragwall/internal, rules, filter, filter/flow,
// packet, packet/verdict and wire.
package explain
