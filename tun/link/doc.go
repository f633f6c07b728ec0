// Package link makes a NIC and another device, as a port's TAP, one wire.
//
//	NIC ══ TAP
//
// [Join] does it by a redirect of the kernel's traffic control, or by a bridge:
// whatever comes in by one leaves by the other, and the box neither takes nor sends a
// frame of its own there. [Bypass] joins two NICs without anything between them, and
// stays. What joins a NIC carries the NIC's former state, so that the next process
// finds it after one that was killed; [Release] sets it back.
//
// Devices belong to the network namespace of the calling thread. A [Junction] belongs
// to one goroutine. Of fragwall's, the package imports tun/netdev.
package link
