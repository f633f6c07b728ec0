// Package status serves the report of a running box by HTTP.
//
//	report.Source ─┬─► report ───┬── /metrics      Prometheus text format
//	               │             └── /api/status   JSON
//	               └─► history ───── /api/history  JSON
//	                                 /             the page, which reads both
//
// Each report is a snapshot; the history is of the last hour. /healthz says whether the datapath answers,
// /readyz whether frames flow.
//
// On other addresses than loopback, metrics and status want a token; the page
// itself, which is the same for everyone, and the two health checks don't. The
// server only ever reads.
//
// The package imports report, history and exit, wire, fastpath and packet/verdict for the
// names of metrics, and rules for the reader of the token.
// It knows neither devices nor files.
package status
