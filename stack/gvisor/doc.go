// Package gvisor puts fragments together with gVisor's netstack. It is the only
// package of the program that imports gVisor.
//
// In come all fragments of a datagram, in the order of their offsets, each with
// the frame that it came in ([Fragment]); out goes the reassembled fragmentable
// part ([Whole]), or nothing where gVisor does not find the datagram whole. From
// a Whole, [Whole.Rebuild] makes frames anew.
//
// gVisor gets synthetic packets: IPv4 for both families, constant addresses, no
// options, a neutral protocol, and a clock that stands still. Between two
// datagrams it holds nothing of them. An [Engine] belongs to whoever calls it, one
// goroutine at a time; the fragments are lent to it for the call. The memory of
// Frames and Wholes is used again: who has one releases it.
//
// Of ours it imports packet and packet/verdict.
package gvisor
