// Package listing lists what a running box knows: the flows of its policy, and the
// datagrams that wait for fragments.
//
//	control socket, status page ──► Query ──► Lister ──► Flow, Waiting, Source
//	                                                      │
//	command ◄── Table, JSON ◄── Batch ◄── control socket ◄┘
//
// The tables of the datapath are copied a few entries at a time, with a part of them
// locked for microseconds, and all clients of a [Lister] together look at no more than
// [pace] entries in a second. So a listing costs the wire little, whatever a client
// asks for, and nothing while a client does not read.
//
// A [Lister] may be used by any number of goroutines; a [Table] belongs to one.
//
// Of ours the package imports selector and terminal, below cmd/fragwall/internal, filter, filter/flow,
// packet, packet/verdict, rules and wire.
package listing
