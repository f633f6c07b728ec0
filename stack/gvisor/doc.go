// Package gvisor reassembles datagrams with gVisor's netstack. It is the only package that
// imports gVisor.
//
// The input is all fragments of a datagram, in the order of their offsets, each with the frame
// that it arrived in ([Fragment]). The output is the reassembled fragmentable part ([Whole]),
// or nothing if gVisor does not consider the datagram complete. [Whole.Rebuild] makes new
// frames from a Whole.
//
// gVisor receives only the payloads, under a constant identification, and a clock that stands
// still. It keeps no state between two datagrams. Only one goroutine at a time may use an
// [Engine]. The engine uses the caller's fragments only during the call. The memory of Frames
// and Wholes is reused, so their owner must release them.
//
// Of fragwall's packages, it imports packet and packet/verdict.
package gvisor
