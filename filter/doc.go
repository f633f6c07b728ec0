// Package filter holds the compiled policy and judges datagrams by it.
//
// In comes a decoded packet, whole or put together from fragments, and the
// side it came in by; out goes a [Verdict]: the action, the reason where it
// is a drop, and the rule that decided. A [Policy] is immutable once built,
// so any number of goroutines may judge by it at once, and a reload swaps one
// for another. Judging allocates nothing, takes no lock and asks no clock.
//
// It imports packet alone, and knows neither TOML nor devices.
package filter
