// Package wire is the bump in the wire: two directions, each of which takes
// frames from one side's port and gives those that the policy accepts to the
// other's.
//
//	read ──► decode ──► mend ──────► judge ──► write
//	port     packet     stack        filter    port
//	                    fragments only
//
// A whole packet leaves in the batch it came in, from the very bytes it came
// in; it waits for nothing, and is judged without an allocation: by a
// stateless policy also without a lock or a clock, by a stateful one with one
// reading of the clock a batch and the lock on a part of the flows. What the
// policy rejects is dropped, and answered out of the side that it came in by.
//
// What becomes of a fragment is the mode's to say. In [packet.ModeReassemble]
// it is copied into the table, and all fragments of a datagram leave together,
// as they came or rebuilt, once the datagram is whole and the policy of that
// moment accepts it. In [packet.ModeValidate] it leaves as a whole packet does,
// where its datagram's first fragment was accepted. The other modes keep
// nothing.
//
// [Bump.Run] owns three goroutines: one a direction, and one that drops what
// waits beyond its deadline and frees flows whose time is up. The two
// directions share the table, the policy with its flows, and, for answers, each
// other's egress port by [tun.Port.Send]. [Bump.Reload] may come from anywhere.
// Every frame is counted once in the [Counters] of the side it came in by, and
// an [Observer], if there is one, hears of every decision. A [Stepper] drives
// the same directions without goroutines, at the times of a capture.
//
// The package imports packet, stack, filter and tun, and knows neither
// namespaces nor files: devices, captures and tests are ports to it.
package wire
