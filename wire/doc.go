// Package wire is the bump in the wire: from each side to the other one
// direction a lane, which reads frames and writes those that the policy
// accepts.
//
//	read ──► decode ──► fragments ──► judge ──► write ──► report
//	tun      packet     stack         filter    tun       Observer
//
// A whole packet leaves in the batch it came in, from the very bytes it came
// in; it waits for nothing, and is judged without an allocation: by a
// stateless policy also without a lock or a clock, by a stateful one with one
// reading of the clock a batch and the lock on a part of the flows. What the
// policy rejects is dropped, and answered out of the side that it came in by.
//
// The mode says what becomes of a fragment. In [packet.ModeReassemble]
// it is copied into the table, and all fragments of a datagram leave together,
// as they came or rebuilt, once the datagram is whole and the policy of that
// moment accepts it. In [packet.ModeValidate] it leaves as a whole packet does,
// where its datagram's first fragment was accepted. The other modes keep
// nothing. While a lane is behind, datagrams of sources without credit
// ([stack.Shedding]) are dropped before they cost anything, except for a few
// in each batch. What a lane shed before ([tun.Lane]) counts as dropped, too.
//
// A frame with offload metadata may stand for many packets. The metadata pass
// through untouched, but are never trusted: the frame is dropped where they
// contradict the packet, and where they are lost, as in the table, what they
// ask for is done.
//
// [Bump.Run] owns one goroutine a direction, and one that drops what waits
// beyond its deadline and frees flows whose time is up. The directions share
// the table and the policy with its flows. Any goroutine may call [Bump.Reload].
// Every frame is counted once in the [Counters] of the side it came in by. One
// batch in many is timed, for the [Latency] of its side. A [Stepper] drives
// the same directions without goroutines, at the times of a capture.
//
// An [Observer], if there is one, is asked about each decision, and is told of
// those that it wants after the batch was written: frames that pass don't wait
// for it. The frames of a decision are lent to it for the call. It may change while
// frames flow ([Bump.Observe]).
//
// Another process can go on in the place of the wire: [Bump.Hold] stops the lanes between
// two frames, [Bump.Save] writes all that the wire knows, and [Bump.Restore] reads it. Flows,
// of which there may be a million, are saved while frames flow, and those that changed
// since once more while the wire is held.
//
// A [FastPath], if there is one, forwards and drops frames before a lane gets them. After
// each batch the wire tells it which verdicts are cacheable. It asks the fast path for
// its counters, and for the part of a datagram that the fast path has forwarded. After
// [Bump.Reload] nothing is decided by the old policy, there or here. The wire does not
// know how a fast path works.
//
// Of ours the package imports packet with its packages reject and verdict, stack,
// filter, filter/flow and tun. It knows neither namespaces nor files: devices, captures and
// tests are lanes to it.
package wire
