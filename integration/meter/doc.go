// Package meter sends numbered traffic between two hosts, through the box between them, and
// counts loss and errors exactly.
//
//	sender of each host ──► sockets ──► the box ──► sockets ──► receiver of each host
//	                                                            └──► Tally of each flow and direction
//
// A [Load] describes the traffic: small UDP datagrams, UDP datagrams that the sender's kernel
// fragments, and TCP streams, each in both directions, over IPv4 and IPv6. [Start] opens the
// sockets and sends until [Meter.Stop], which returns a [Report]: datagrams lost, duplicated,
// reordered and corrupted, and TCP retransmissions, as exact counts. Arrival times are those of the
// receiving kernel (SO_TIMESTAMPNS, socket(7)), so that they do not depend on when the receiver
// runs. Gaps that the sender caused are subtracted.
//
// The inside host begins every flow. So a stateful policy that accepts new flows only from the
// inside passes all the traffic as long as it does not lose its flows.
//
// Each host has one goroutine that sends, bound to a CPU, and one that receives. They use
// nonblocking sockets and one system call for many datagrams (sendmmsg(2), recvmmsg(2)). A
// sender that is late does not catch up, because that would cause a burst above the
// configured rate; the report contains the actual rate. The receive buffers hold the
// traffic of at least a second. Datagrams that do not fit are counted as Overflowed; the meter has
// lost them, not the box.
//
// [Counters] polls Prometheus counters, and reports those that decrease or vanish.
//
// The package does not depend on the program under test. Of fragwall's packages, it imports tun/lab
// and packet/verdict.
package meter
