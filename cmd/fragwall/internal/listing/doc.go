// Package listing lists the state of a running box: the flows of its policy, and the incomplete
// datagrams.
//
//	control socket, status page ──► Query ──► Lister ──► Flow, Waiting, Source
//	                                                      │
//	command ◄── Table, JSON ◄── Batch ◄── control socket ◄┘
//
// A [Lister] copies the tables of the datapath a few entries at a time, and locks a part of a table
// for microseconds. All clients of a Lister together read at most [pace] entries per second. So a
// listing costs the wire little, whatever a client requests, and nothing while a client does not
// read.
//
// Any number of goroutines may use a Lister. Only one may use a [Table].
//
// Of fragwall's packages, it imports selector and terminal (below cmd/fragwall/internal), filter,
// filter/flow, packet, packet/verdict, rules, stack and wire.
package listing
