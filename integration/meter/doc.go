// Package meter sends numbered traffic between two hosts, through whatever joins
// them, and says exactly what became of it.
//
//	sender of each host ──► sockets ──► the box ──► sockets ──► receiver of each host
//	                                                            └──► Tally of each flow and direction
//
// A [Load] says what is sent: small UDP datagrams, UDP datagrams that the sender's
// kernel fragments, and TCP streams, each both ways, over IPv4 and IPv6. [Start] opens
// the sockets and sends until [Meter.Stop], which returns a [Report]: datagrams lost,
// duplicated, reordered and corrupted, and TCP retransmissions, as exact counts. Times
// are the receiving kernel's own (SO_TIMESTAMPNS, socket(7)), so that they do not
// depend on when the receiver runs; a gap that the sender made is taken off.
//
// Every flow is begun by the inside host. So a policy that accepts only what comes from
// the inside, and is stateful, passes all of it as long as it knows its flows.
//
// Each host has one goroutine that sends, bound to a CPU, and one that receives, on
// nonblocking sockets and with system calls for many datagrams at once (sendmmsg(2), recvmmsg(2)). A sender
// that falls behind does not catch up, as that would be a burst that no rate describes:
// the report has the rate that was reached. The receivers' buffers hold what arrives in
// a second or more; what overflows all the same is counted as Overflowed, and is a fault
// of the meter, not of the box.
//
// [Counters] reads Prometheus counters again and again, and reports those that decrease
// or vanish.
//
// It knows nothing of fragwall. It imports tun/lab, whose hosts it uses, and
// packet/verdict for the sides.
package meter
