// Package explain says what a policy decides on a datagram, and why.
//
//	rules.Question ──► packet.View ──► Policy.Ask ──► Answer ──► text or JSON
//	rules.Expectation ────────────────────┘              └─────► Unmet
//
// In come the configuration and a datagram, as the flags of "explain" or an
// expectation describe it. No state takes part: no limit is reached, and no flow is
// known. The package keeps nothing between policies.
//
// It imports rules, filter, packet and packet/verdict.
package explain
