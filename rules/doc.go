// Package rules turns the TOML configuration into typed values that are
// always valid.
//
// In comes the text of a file; out goes a [Config], with the policy as package
// filter compiles it, or [*Errors]: the first 20 mistakes of a file at once, each
// with its line and its correction. No value is ever corrected, ignored or replaced by
// a default on the user's behalf, so a Config holds what the file says and
// nothing else.
//
// The way of a file:
//
//  1. bounds: no text that would cost the decoder more than its size (bounds.go)
//  2. outline: the rules in pieces, and a frame of all else (outline.go), by one
//     walk over the text (scan.go)
//  3. decode: the frame to a tree of Go values, or the one syntax error (decode.go),
//     with the lines of the same tree (place.go)
//  4. names: keys that the configuration doesn't have (keys.go)
//  5. values: each table's by its own file (interface.go, fragments.go,
//     policy.go, sets.go, operate.go), field by field (field.go, list.go)
//  6. rules: piece by piece, each decoded like the frame (rule.go)
//  7. what only fields together can get wrong (interface.go, match.go)
//
// The package reads files, and else keeps no state and touches no device. Its
// goroutines decode and read; they end with the call, but for those that a file
// server keeps waiting. It imports filter, and packet and
// packet/verdict for the vocabulary.
package rules
