// Package conntrack compares a stateful policy with the kernel's connection tracking, packet by
// packet.
//
//	seed ──► Generate ──► Exchange ──┬──► Kernel ──► Observation of each packet
//	                                 └──► the caller's own filter
//
// An [Exchange] is a script: packets of two hosts and of third parties, with pauses between
// them. It depends only on the seed and on its number. A [Kernel] is a network namespace that
// routes between two TUN devices, with the nftables ruleset that corresponds to fragwall's
// flows. It runs thousands of exchanges at once, each between its own addresses ([Slot]).
//
// A pause takes no time: its length is subtracted, over ctnetlink, from the remaining time of
// each conntrack entry of the exchange. So the kernel's default timeouts apply, including the
// one of 5 days.
//
// The package may import packet, packet/packettest and tun/lab. It does not depend on
// fragwall's own state.
package conntrack
