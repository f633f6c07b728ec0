// Package handover moves what makes a device an end of the network, its
// addresses, routes, neighbours, MTU and MAC, to another device of the
// namespace, and back.
//
// [Read] takes a [State] of a NIC, as the messages that the kernel describes it
// by (rtnetlink(7)); [State.Move] gives all of it to a TAP, by the very same
// messages with the device's number changed, so that whatever attribute a
// route has moves along; [State.Return] gives the NIC what the TAP has by then.
// What the NIC is given in between, [State.Adopt] moves on. A connection that is
// open stays open: at every moment one of the two has each address and each
// route, and the TAP knows the neighbours' MACs before the first packet leaves
// by it.
//
// A state outlives the process in a [Store]. It is written before anything is
// changed, and again, by [State.Refresh], when something did of what the TAP has
// ([Changed]), and [State.Return] adds only what is missing, so that it works from
// every state in between, and also when the TAP went with a killed process.
//
// The NIC is known by its index, whatever it is called. All of it belongs on a thread
// in the devices' network namespace, and needs CAP_NET_ADMIN. Of fragwall's, the
// package imports tun/netdev and packet/checksum.
package handover
