// Package status serves the report of a running box over HTTP.
//
//	report.Source ─┬─► report ───┬── /metrics      Prometheus text format
//	               │             └── /api/status   JSON
//	               └─► history ───── /api/history  JSON
//	listing.Lister ───────────────── /api/flows, /api/waiting, /api/sources  JSON
//	                                 /             the page, which reads all JSON
//
// Each report is a snapshot; the history covers the last hour. /healthz reports whether the datapath
// responds, /readyz whether frames flow.
//
// On addresses other than loopback, clients need a token for everything except the page itself,
// which contains no data, and the two health checks. Lists contain addresses of hosts, so clients
// need a token for them on loopback, too. The server is read-only.
//
// The package imports report, history, listing, selector, exit and terminal; wire, fastpath and
// packet/verdict for the names of metrics; and rules for the reader of the token. It accesses no
// devices, and no files except that of the token.
package status
