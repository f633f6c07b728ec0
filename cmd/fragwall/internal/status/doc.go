// Package status tells those who ask by HTTP how a running box is.
//
//	wire ──► report ──┬── /metrics     Prometheus text format
//	                  ├── /api/status  JSON
//	                  └── /            the page, which reads /api/status
//
// Everything is read when it is asked for, from one snapshot of each side's
// counters, so that in every answer the sums agree: received is forwarded,
// dropped and waiting. /healthz says whether the process can still tell,
// /readyz whether frames flow.
//
// On other addresses than loopback, what tells of the box wants a token; the
// page itself, which is the same for everyone, and the two health checks don't.
// The server only ever reads.
//
// The package imports wire, filter, stack and packet, and events for the last
// of them. It knows neither devices nor files.
package status
