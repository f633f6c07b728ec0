// Fragwall is a bump in the wire: it reassembles fragmented datagrams, judges them by a
// 5-tuple policy, and forwards those that it accepts.
//
// This package is the command line: the commands, their flags and the signals. The packages
// below internal do the work:
//
//	run, sidecar ──► daemon ──► box ──► the wire and its devices
//	                   └► control, status ──► report
//	replay ──► replay ──► the wire
//	demo ──► demo ──► box
//	reload, status ──► control
//	explain ──► explain
//
// Errors go to stderr, one per line. The process exits with 0 when it did what it was asked,
// 1 when it failed while running, and 2 for wrong usage or a wrong configuration.
package main
