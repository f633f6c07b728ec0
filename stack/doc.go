// Package stack assigns fragments to datagrams, and decides when a datagram is complete.
//
//	              ┌── Reassembler ──► complete datagrams, to judge and to forward
//	fragments ──► Table
//	              └── Validator ────► the fragments themselves, by the verdict on the first
//
// The [Table] is the authority on incomplete datagrams: their keys, deadlines and memory, which
// one is evicted, and which ones were discarded. Fragments that contradict others of their
// datagram, that are late, or that are evicted are dropped and counted. Callers pass
// fragments one at a time, decoded and valid in themselves.
//
// A [Reassembler] keeps fragments until their datagram is complete. Then it returns a
// [Datagram]: the beginning of the payload, to judge by, and the frames to forward, either as
// they arrived, in the order of their offsets, or made anew ([Datagram.Rebuild]). Package
// gvisor reassembles the payload once the table has all fragments. Incomplete datagrams never
// reach it, and if it disagrees that a datagram is complete, the datagram is dropped.
//
// A [Validator] keeps no payload. It records which bytes of a datagram have arrived, so that
// no byte passes twice. A fragment follows the verdict on the first fragment of its datagram,
// and waits only if that has not arrived yet. The caller judges the first fragment between
// [Validator.Claim] and [Validator.Settle], with no lock held.
//
// If fragments arrive faster than the table can take them, [Shedding] chooses the datagrams
// to drop: those of unknown sources.
//
// Any number of goroutines may use a table, each with its own [Reassembler] or [Validator]
// ([Reassembler.With]). The table is divided into shards by the source of the fragments, and
// each shard has its own lock and its own reassembly engine. A Datagram belongs to the
// goroutine that received it, until that releases it.
//
// Another process can take over the incomplete and the discarded datagrams ([Table.Save],
// [Reassembler.Restore], [Validator.Restore]) and the credits ([Table.SaveCredits]).
//
// With the same key ([Options.Key]) and the same input at the same times, a table makes the
// same decisions and reports them in the same order.
package stack
