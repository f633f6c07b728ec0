// Package box has the wire with its devices: two ports, the lanes between them, and
// the NICs that are joined to them.
//
//	NIC ◄─ junction ─► port ◄─ lanes ─► port ◄─ junction ─► NIC
//
// [Open] makes the devices by a configuration, [Box.Run] forwards, [Box.Close]
// removes what Open made. A [Watch] follows what happens to the devices meanwhile: it
// joins a NIC again, follows its MTU, and propagates the state of its link.
//
// Where it can be, a fast path is in front of the NICs, of a sidecar also behind the
// inside port, from [Box.AttachFastPath] to [Box.CloseFastPath], and follows the NICs.
//
// Open, Close, Join and Part belong on a thread in the network namespace of the
// devices; a mutex guards what they share with the one goroutine of the Watch.
// Everything that the kernel has to do goes by a [Kernel], so that tests need none.
//
// The package imports wire, fastpath, filter, tun, tun/device, tun/link and tun/netdev,
// rules for the configuration, packet/verdict for the sides, and of the command's
// packages datapath, events and report.
package box
