// Package replay runs a capture through the wire, with the capture's timestamps as the clock.
//
//	capture ──► replay ──► wire.Stepper ──► lane ──► output
//	                            │
//	                            └─ decisions ──► verdicts, dropped frames, summary
//
// The inputs are [Options], the configuration and the capture. The outputs are captures, verdicts as
// JSON, and a summary. Everything runs on the goroutine that calls [Run], also the callbacks of the
// wire. No output is opened before the input is known to be a capture, and no output may be one of
// the input files.
//
// The package imports wire, tun, tun/capture, packet, packet/checksum, packet/verdict, filter and
// rules, and of the command's packages datapath, exit, record, report and terminal. It needs no
// privileges and no devices.
package replay
