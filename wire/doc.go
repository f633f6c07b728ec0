// Package wire is the bump in the wire. It has one direction per lane, each way. A direction
// reads frames, and writes those that the policy accepts.
//
//	read ──► decode ──► fragments ──► judge ──► write ──► report
//	tun      packet     stack         filter    tun       Observer
//
// A whole packet leaves in the batch that it arrived in, without a copy and without waiting.
// Judging it allocates nothing. A stateless policy takes no lock and reads no clock. A stateful
// policy reads the clock once per batch and locks one part of the flows. A packet that the
// policy rejects is dropped, and the answer is sent out of its ingress side.
//
// The mode decides how fragments are handled. In [packet.ModeReassemble], a fragment is copied
// into the table. Once the datagram is complete, the policy then in force judges it. If it is
// accepted, all its fragments leave together, either as they arrived or rebuilt. In
// [packet.ModeValidate], a fragment leaves as a whole packet does if the first fragment of its
// datagram was accepted. The other modes keep no state. While a lane is behind, datagrams of
// unknown sources ([stack.Shedding]) are dropped before they cost anything, except for a few in
// each batch. Fragments that a lane shed earlier ([tun.Lane]) also count as dropped.
//
// A frame with offload metadata may stand for many packets. The metadata pass through unchanged,
// but are never trusted. A frame is dropped if they contradict the packet. Where they are lost,
// as in the table, fragwall does what they ask for.
//
// [Bump.Run] owns one goroutine per direction, and one more that drops fragments whose deadline
// has passed and frees flows whose idle timeout has passed. The directions share the table, and
// the policy with its flows. Any goroutine may call [Bump.Reload]. Every frame is counted once,
// in the [Counters] of its ingress side. One batch in many is timed for the [Latency] of its
// side. A [Stepper] drives the same directions without goroutines, with the timestamps of a
// capture as the clock.
//
// An [Observer], if there is one, is asked about each decision. It is told of those that it
// wants after the batch was written, so frames that pass do not wait for it. It may use the
// frames of a decision only during the call. It may be replaced while frames flow
// ([Bump.Observe]).
//
// Another process can take over the wire: [Bump.Hold] stops the lanes between two frames,
// [Bump.Save] writes all state of the wire, and [Bump.Restore] reads it. There may be a million
// flows. They are saved while frames flow, and those that have changed since are saved again
// while the wire is held.
//
// A [FastPath], if there is one, forwards and drops frames before a lane gets them. After each
// batch, the wire tells it which verdicts are cacheable. The wire asks it for its counters, and
// for the part of a datagram that it has forwarded. Once [Bump.Reload] has returned, neither the
// wire nor the fast path decides anything by the old policy. The wire does not know how a fast
// path works.
//
// Of fragwall's packages, it imports packet, packet/reject, packet/verdict, stack, filter,
// filter/flow and tun. It knows neither namespaces nor files. Devices, captures and tests are
// all lanes to it.
package wire
