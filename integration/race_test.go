//go:build race

package integration_test

// If the tests are built with the race detector, the binary is too.
func init() { buildFlags = append(buildFlags, "-race") }
