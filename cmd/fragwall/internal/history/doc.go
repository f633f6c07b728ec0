// Package history keeps the counters of a box over the last hour.
//
//	report.Source ──► Read ──► Sample, each second ──► History ──► points of 5 s (status)
//
// A [History] holds 720 points of a fixed size. A new point replaces the oldest. One goroutine adds
// samples; any goroutine may read points.
//
// It imports report, and wire and packet/verdict for the counters.
package history
