// Fragwall is a bump in the wire that puts fragmented datagrams together
// before a 5-tuple policy judges them, and forwards what it accepts.
//
// This package is the command line: the commands, their flags and the signals. What
// they do is in the packages below internal:
//
//	run, sidecar ──► daemon ──► box ──► the wire and its devices
//	                   └► control, status ──► report
//	replay ──► replay ──► the wire
//	demo ──► demo ──► box
//	reload, status ──► control
//	explain ──► explain
//
// Errors go to stderr, one a line; the process exits with 0 when it did what it was
// asked, 1 when it failed while running, and 2 for wrong usage or a wrong
// configuration. It may import every package but those of tests.
package main
