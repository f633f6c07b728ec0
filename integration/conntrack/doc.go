// Package conntrack compares a stateful policy with the kernel's connection
// tracking, packet by packet.
//
//	seed ──► Generate ──► Exchange ──┬──► Kernel ──► Observation of each packet
//	                                 └──► the caller's own filter
//
// An [Exchange] is a script: packets of two hosts and of whoever interferes,
// with pauses between them. It depends on the seed and on its number alone. A
// [Kernel] is a network namespace that routes between two TUN devices, with the
// nftables ruleset that fragwall's flows stand for. It runs thousands of
// exchanges at once, each between addresses of its own ([Slot]).
//
// A pause takes no time: its length is subtracted from the time that each
// conntrack entry of the exchange has left, over ctnetlink. So the kernel's
// default timeouts apply, 5 days included.
//
// The package may import packet, packet/packettest and tun/lab. It knows
// nothing about fragwall's own state.
package conntrack
