// Package reject builds the answers to datagrams that the policy rejects.
//
// In come a frame, or a datagram's first fragment, and the [packet.View] that
// the policy judged; out goes the frame to send back out of the side that the
// datagram came in by: a TCP RST, or an ICMP error that says "administratively
// prohibited". The package keeps no state and may be used by any goroutine.
//
// It imports packet and packet/checksum.
package reject
