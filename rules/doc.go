// Package rules turns the TOML configuration into typed values that are always valid.
//
// [Load] takes a file. It returns a [Config], with the policy for package filter, or
// [*Errors]: the first 20 mistakes of each file, each with its line and a suggested fix. It
// never corrects or ignores a value, and never replaces one by a default, so a Config holds
// exactly what the file says.
//
// A file is read in these steps:
//
//  1. bounds: refuse a text whose decoding would cost more than its size (bounds.go)
//  2. outline: cut the text into pieces with rules and a frame with everything else
//     (outline.go), in one walk over the text (scan.go)
//  3. decode: turn the frame into a tree of Go values, or find the one syntax error
//     (decode.go), with the lines of the values in a second tree (place.go)
//  4. names: report keys that the configuration does not have (keys.go)
//  5. values: read each table in a file of its own (interface.go, fragments.go, policy.go,
//     sets.go, operate.go), field by field (field.go, list.go)
//  6. rules: decode and read them piece by piece (rule.go)
//  7. combinations: check the fields that depend on one another (interface.go, match.go)
//
// The package reads files, and otherwise keeps no state and uses no device. Its goroutines
// decode and read; they end with the call, except those that wait for a file server.
package rules
