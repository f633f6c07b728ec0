//go:build race

package integration_test

// The binary is built with the race detector if the tests are.
func init() { buildFlags = append(buildFlags, "-race") }
