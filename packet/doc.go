// Package packet decodes an Ethernet frame in place.
//
// In comes one frame as a device delivered it, padding included; out goes a
// [Parsed], which the caller owns and uses again for the next frame: the
// link layer with up to two VLAN tags, the IPv4 or IPv6 header, the IPv6
// extension chain, what the packet says of its fragmentation, and the fields
// of the upper-layer header that a 5-tuple policy asks for. Nothing is
// copied, kept or allocated, and no input makes it panic.
//
// The package also holds [View], which is what a policy judges, and [Mode] and
// [Emit], which the other packages share. It starts no goroutine. Of
// ours it imports packet/checksum and packet/verdict.
package packet
