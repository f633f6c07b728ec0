// Package box combines the wire with its devices: two ports, the lanes between them, and the NICs
// that are joined to them.
//
//	NIC ◄─ junction ─► port ◄─ lanes ─► port ◄─ junction ─► NIC
//
// [Open] creates the devices of the configuration, [Box.Run] forwards, and [Box.Close] removes what
// Open created. Meanwhile a [Watch] tracks changes of the devices: it joins a NIC that returns,
// follows its MTU, and propagates its link state.
//
// If the system supports it, a fast path is attached to the NICs, and in a sidecar also to the
// inside port, from [Box.AttachFastPath] to [Box.CloseFastPath]. The Watch attaches it to NICs that
// return.
//
// Call Open, Close, Join and Part on a thread in the network namespace of the devices. A mutex
// guards the state that they share with the goroutine of the Watch. All kernel operations go
// through a [Kernel], so that tests can replace it.
//
// The package imports wire, fastpath, filter, tun, tun/device, tun/link and tun/netdev, rules for
// the configuration, packet/verdict for the sides, and of the command's packages datapath, events
// and report.
package box
