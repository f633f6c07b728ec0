// Package rules turns the TOML configuration into typed values that are
// always valid.
//
// In comes the text of a file; out goes a [Config], with the policy as package
// filter compiles it, or [*Errors]: every mistake in the file at once, each
// with its line and its mend. No value is ever mended, ignored or replaced by
// a default on the user's behalf, so a Config holds what the file says and
// nothing else.
//
// The way of a file:
//
//  1. decode: text to a tree of Go values, or the one syntax error (decode.go)
//  2. locate: the lines of the same tree (place.go)
//  3. names: keys that the configuration doesn't have (keys.go)
//  4. values: each table's by its own file (interface.go, fragments.go,
//     policy.go, sets.go, rule.go, operate.go), field by field (field.go, list.go)
//  5. what only fields together can get wrong (interface.go, match.go)
//
// The package reads the files that sets name, and else keeps no state, starts
// no goroutine and touches no device. It imports filter, and packet for the vocabulary.
package rules
