// Package report defines what an instance reports about itself, and the formats of that report.
//
//	wire, devices, events, policy ──► Source ──► Report ──┬── JSON (status, control)
//	                                                      ├── metrics (status)
//	                                                      ├── tables (fragwall status)
//	                                                      └── counters (SIGUSR1, demo)
//
// A [Report] is a snapshot, read on request. The counters of one side are read together, so that the
// sums agree: received equals forwarded plus dropped plus waiting. Any goroutine may request one.
//
// The package imports wire, fastpath, stack, filter, filter/flow, packet and packet/verdict for its
// input, events for the most recent events, record for their format, and terminal. It accesses no
// devices and no files.
package report
