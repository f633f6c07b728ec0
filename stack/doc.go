// Package stack puts the fragments of datagrams together.
//
// In comes one fragment at a time, decoded and sound in itself; out goes
// nothing until its datagram is whole, and then a [Datagram]: the beginning of
// the reassembled payload to judge by, and the fragments as they came, in the
// order of their offsets, to forward. What does not become whole by its
// deadline, contradicts itself, or must give way is dropped and counted.
//
// gVisor's netstack reassembles; it appears in this package alone. The
// [Table] is the authority over what waits, for how long and at what cost:
// gVisor sees each datagram under a number of its own, without the wire's
// addresses, and its clock stands still.
//
// A Table may be used by any number of goroutines: it is split into shards by
// the fragments' source, each with a lock and an engine of its own. A Datagram
// belongs to the goroutine whose fragment completed it, until it releases it.
//
// The package imports packet alone.
package stack
