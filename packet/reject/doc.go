// Package reject builds the replies to datagrams that the policy rejects.
//
// [Append] takes a frame, or the first fragment of a datagram, and the [packet.View] that
// the policy judged. It returns the frame to send back to the side that the datagram
// arrived on: a TCP RST, or an ICMP error "administratively prohibited". The package
// keeps no state.
package reject
