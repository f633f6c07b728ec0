// Package link joins a NIC and another device, such as a port's TAP, into one wire.
//
//	NIC ══ TAP
//
// [Join] does this by a redirect of the kernel's traffic control, or by a bridge: every frame
// that arrives on one leaves by the other, and the box itself neither receives nor sends frames
// there. [Bypass] joins two NICs directly, and stays after the process ends. What joins a NIC
// carries the NIC's former state, so that the next process finds it if this one is killed;
// [Release] restores that state.
//
// Devices belong to the network namespace of the calling thread. A [Junction] belongs to one
// goroutine. The package imports tun/netdev.
package link
