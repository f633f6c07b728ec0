//go:build race

package filter_test

func init() { underRace = true }
