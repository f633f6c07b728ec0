// Package stack knows which fragments belong to one datagram, in two ways.
//
//	              ┌── Reassembler ──► whole datagrams, to judge and to forward
//	fragments ──► Table
//	              └── Validator ────► the fragments themselves, by the verdict on the first
//
// In comes one fragment at a time, decoded and sound in itself. The [Table]
// is the authority over what waits, for how long and at what cost: keys,
// deadlines, memory, who gives way, and which datagrams were given up, of
// which nothing more passes until their deadline. What contradicts itself,
// does not come in time, or must give way is dropped and counted.
//
// Of a [Reassembler] nothing comes out until a datagram is whole, and then a
// [Datagram]: the beginning of the reassembled payload to judge by, and what to
// forward: the fragments as they came, in the order of their offsets, or frames
// made anew ([Datagram.Rebuild]). Package gvisor puts datagrams together: it gets a
// datagram's fragments once the table has all of them. What never completes costs
// it nothing, and what it does not find whole does not pass.
//
// A [Validator] keeps no payload, but which bytes were claimed, so that none
// passes twice: a fragment passes by the verdict on the first of its datagram,
// and waits only where that is still to come. The caller judges the first with no
// lock held, between [Validator.Claim] and [Validator.Settle].
//
// Where more fragments come than the caller can give to the table, [Shedding] says
// which datagrams to drop: those of senders without credit, of whom none was accepted.
//
// A table may be used by any number of goroutines: it is split into shards by
// the fragments' source, each with a lock, and an engine, of its own. A
// Datagram handed out belongs to the goroutine that got it, until it releases
// it.
//
// With the same key ([Options.Key]) and the same input at the same times a
// table does the same, and reports it in the same order.
//
// Of ours the package imports packet, packet/verdict and stack/gvisor.
package stack
