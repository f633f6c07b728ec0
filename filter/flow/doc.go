// Package flow tracks the flows of a stateful policy, as the kernel's connection tracking does
// (net/netfilter/nf_conntrack_*.c). It determines which datagrams belong to a flow that the
// policy accepted, which ones begin a flow, and which ones no host sends.
//
// The input is a decoded datagram ([packet.View]). [Table.Open] finds its flow:
//
//  1. It makes the key of the flow from addresses, ports and VLANs, or from the packet that an
//     ICMP error quotes (key.go, icmp.go).
//  2. It locks the shard that holds the flow, until [Access.Close] (table.go).
//  3. [Access.Take] judges the datagram by the flow (flow.go): TCP by a table of states
//     (state.go, tcp.go) and by sequence numbers (window.go), UDP by time.
//
// [Access.Begin] begins a flow. If the table is full, it evicts another one (order.go).
//
// A fast path ([Offload]) may forward datagrams of a flow, which the table then does not see.
// Before the table judges a datagram of such a flow, lists the flow, or removes it because it is
// idle or the table is full, it takes over what the fast path noted (offload.go).
//
// Another process can take over the flows. [Table.Save] returns them, [Table.SaveChanges] returns
// those that have changed since, and a [Restore] inserts them into the new table. The new table
// evicts them in the order in which they were last seen.
//
// Any number of goroutines may use a table at once. Each datagram briefly takes the lock of one of
// 64 shards. Only new flows allocate memory.
//
// Of fragwall's packages, it imports packet and packet/verdict. The policy (package filter)
// decides which datagrams may begin a flow.
package flow
