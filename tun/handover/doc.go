// Package handover moves a NIC's network configuration (addresses, routes, neighbours, MTU and
// MAC) to another device of the namespace, and back.
//
// [Read] reads the [State] of a NIC, as the messages in which the kernel describes it
// (rtnetlink(7)). [State.Move] gives all of it to a TAP, by the same messages with the device's
// index changed, so that every attribute of a route is kept. [State.Return] gives the NIC what
// the TAP has at that time. [State.Adopt] moves on what the NIC is given in between. Open
// connections stay open: at every moment one of the two devices has each address and each
// route, and the TAP knows the neighbours' MACs before the first packet leaves through it.
//
// A [Store] keeps a state after the process ends. The state is written before anything is
// changed. [State.Refresh] updates it when the TAP's configuration changes ([Changed]).
// [State.Return] adds only what is missing, so that it works from every intermediate state, and
// also if the TAP was removed with a killed process.
//
// The NIC is identified by its index, whatever its name. All calls must come from a thread in
// the devices' network namespace, and need CAP_NET_ADMIN. The package imports tun/netdev and
// packet/checksum.
package handover
