// Package explain says what a policy decides on a datagram, and why.
//
// In come a [Question], which is the flags of the command, and the configuration; out
// goes a text for people. Nothing of the policy's state takes part: no limit is
// reached, and no flow is known. The package keeps nothing, and any goroutine may use it.
//
// It imports rules, filter, packet and packet/verdict.
package explain
