// Fragwall is a bump in the wire that puts fragmented datagrams together
// before a 5-tuple policy judges them, and forwards what it accepts.
//
// This package is the command line: it reads the configuration, makes the
// devices, and sets the wire going, or drives it over a capture. Errors go to stderr, one a line; the
// process exits with 0 when it did what it was asked, 1 when it failed while
// running, and 2 for wrong usage or a wrong configuration.
package main
