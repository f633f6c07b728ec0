//go:build race

package integration_test

// The binary is built with the race detector when the tests are.
func init() { buildFlags = append(buildFlags, "-race") }
