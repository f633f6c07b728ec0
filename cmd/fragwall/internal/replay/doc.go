// Package replay runs a capture through the wire, with the capture's own times as
// the clock.
//
//	capture ──► replay ──► wire.Stepper ──► lane ──► output
//	                            │
//	                            └─ decisions ──► verdicts, dropped frames, summary
//
// What comes in are [Options], the configuration and the capture; what goes out
// are captures, verdicts as JSON, and a summary. All of it runs on the goroutine
// that calls [Run], which the wire calls back. No output is opened before the
// input is known to be a capture, and none is one of the files that are read.
//
// The package imports wire, tun and tun/capture, packet/checksum, filter, packet,
// packet/verdict and rules for their vocabulary, and of the command's packages
// datapath, exit, record, report and terminal.
// It needs no rights and no devices.
package replay
