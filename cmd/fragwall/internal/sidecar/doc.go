// Package sidecar puts a box between the network stack of a namespace and its NIC.
//
//	before:  stack ── NIC
//	after:   stack ── inside TAP ── box ── outside TAP ── NIC
//
// [Run] moves the NIC's addresses, routes and neighbours to the inside TAP, keeps a
// copy of them in a [handover.Store], moves what the NIC is given later, and puts all
// back at the end. [Restore] puts back what a killed sidecar left.
//
// The box is attached and detached by the daemon's goroutine; two goroutines of
// Follow keep up with changes, and a mutex guards the state between them.
//
// The package imports tun/handover, tun/link and tun/netdev, rules, packet/verdict, and of the
// command's packages box, confine and daemon.
package sidecar
