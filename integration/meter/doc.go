// Package meter sends numbered traffic between two hosts, through the box that joins them, and
// reports exactly what happened to it.
//
//	sender of each host ──► sockets ──► the box ──► sockets ──► receiver of each host
//	                                                            └──► Tally of each flow and direction
//
// A [Load] describes the traffic: small UDP datagrams, UDP datagrams that the sender's kernel
// fragments, and TCP streams, each in both directions, over IPv4 and IPv6. [Start] opens the
// sockets and sends until [Meter.Stop], which returns a [Report]: datagrams lost, duplicated,
// reordered and corrupted, and TCP retransmissions, as exact counts. Times are those of the
// receiving kernel (SO_TIMESTAMPNS, socket(7)), so that they do not depend on when the receiver
// runs. A gap that the sender caused is subtracted.
//
// The inside host starts every flow. So a stateful policy that accepts only new flows from the
// inside passes all the traffic as long as it knows its flows.
//
// Each host has one goroutine that sends, bound to a CPU, and one that receives. They use
// nonblocking sockets and system calls for many datagrams at once (sendmmsg(2), recvmmsg(2)). A
// sender that falls behind does not catch up, because that would be a burst above the
// configured rate; the report has the rate that was reached. The receivers' buffers hold the
// traffic of a second or more. Datagrams that overflow them are counted as Overflowed, a fault
// of the meter, not of the box.
//
// [Counters] polls Prometheus counters, and reports those that decrease or vanish.
//
// The package does not depend on fragwall's program. It imports tun/lab, whose hosts it uses,
// and packet/verdict for the sides.
package meter
