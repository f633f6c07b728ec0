// Package status serves the report of a running box by HTTP.
//
//	report.Source ─┬─► report ───┬── /metrics      Prometheus text format
//	               │             └── /api/status   JSON
//	               └─► history ───── /api/history  JSON
//	listing.Lister ───────────────── /api/flows, /api/waiting, /api/sources  JSON
//	                                 /             the page, which reads all JSON
//
// Each report is a snapshot; the history is of the last hour. /healthz says whether
// the datapath answers, /readyz whether frames flow.
//
// On other addresses than loopback, all but the page itself, which is the same for
// everyone, and the two health checks want a token. Lists, which name hosts, are only
// for clients with a token, also on loopback. The server only ever reads.
//
// The package imports report, history, listing with selector, and exit, wire, fastpath
// and packet/verdict for the names of metrics, and rules for the reader of the token.
// It knows neither devices nor files.
package status
