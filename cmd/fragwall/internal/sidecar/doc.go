// Package sidecar inserts a box between the network stack of a namespace and its NIC.
//
//	before:  stack ── NIC
//	after:   stack ── inside TAP ── box ── outside TAP ── NIC
//
// [Run] moves the NIC's addresses, routes and neighbours to the inside TAP, and keeps a copy of them
// in a [handover.Store]. It also moves those that the NIC receives later, and moves everything back
// at the end. [Restore] moves back what a killed sidecar left.
//
// The daemon's goroutine attaches and detaches the box. Two goroutines of Follow track changes. A
// mutex guards the state that they share.
//
// The package imports tun/handover, tun/link and tun/netdev, rules, packet/verdict, and of the
// command's packages box, confine and daemon.
package sidecar
