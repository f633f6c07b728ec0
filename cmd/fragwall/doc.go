// Fragwall is a bump in the wire: it reassembles fragmented datagrams, judges them by a
// 5-tuple policy, and forwards those that it accepts.
//
// This package is the command line: the commands, their flags and the signals. The packages
// below internal do the work:
//
//	run, sidecar ──► daemon ──► box ──► the wire and its devices
//	                   └► control, status ──► report
//	standby ──► standby ──► run --replace
//	replay ──► replay ──► the wire
//	demo ──► demo ──► box
//	reload, status, capture ──► control
//	flows, waiting ──► inspect ──► control
//	explain, check ──► explain
//
// Errors go to stderr, one per line. The exit code is 0 on success, 1 for a failure at run time,
// and 2 for wrong usage or an invalid configuration.
package main
