// Package packet decodes Ethernet frames in place.
//
// [Parsed.Decode] takes one frame as a device delivered it, padding included. It fills a
// [Parsed], which the caller owns and uses again for the next frame, with
//
//   - the link layer, with up to two VLAN tags,
//   - the IPv4 or IPv6 header,
//   - the IPv6 extension chain,
//   - the offset, flags and identification of a fragment,
//   - the ports, or the ICMP type and code.
//
// It returns [verdict.Passed], or the reason why the frame must be dropped. It copies
// nothing, allocates nothing, and does not panic, whatever the frame holds.
//
// [View] is what a policy judges. [Mode] and [Emit] are the ways to handle fragments, which
// other packages share.
//
// The package starts no goroutine and keeps no state.
package packet
