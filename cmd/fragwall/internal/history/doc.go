// Package history keeps what the counters of a box were in the last hour.
//
//	report.Source ──► Read ──► Sample, each second ──► History ──► points of 5 s (status)
//
// A [History] holds 720 points of a fixed size and drops the oldest for a new one.
// One goroutine adds samples; any may ask for points.
//
// It imports report, and wire and packet/verdict for the counters.
package history
