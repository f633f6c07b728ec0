// Package report has what an instance reports of itself, and its forms for people.
//
//	wire, devices, events, policy ──► Source ──► Report ──┬── JSON (status, control)
//	                                                      ├── metrics (status)
//	                                                      ├── tables (fragwall status)
//	                                                      └── counters (SIGUSR1, demo)
//
// A [Report] is a snapshot: everything is read when it is asked for, each side's
// counters at once, so that the sums agree: received is forwarded, dropped and
// waiting. Any goroutine may ask.
//
// The package imports wire, fastpath, stack, filter, filter/flow, packet and packet/verdict for
// what it reads, events for the last of them, record for what they are, and terminal. It knows neither devices nor files.
package report
