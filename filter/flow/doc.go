// Package flow tracks the flows of a stateful policy, as the kernel's
// connection tracking does (net/netfilter/nf_conntrack_*.c): it says which
// datagrams belong to a flow that the policy accepted, which begin one, and
// which no host sends.
//
// In comes a decoded datagram ([packet.View]). [Table.Open] finds the flow that
// it has to do with:
//
//  1. the key of the flow, from addresses, ports and VLANs, or from what an ICMP
//     error quotes (key.go, icmp.go);
//  2. the shard that the flow is in, which stays locked until [Access.Close]
//     (table.go);
//  3. [Access.Take] judges the datagram by the flow (flow.go): TCP by a table of
//     states (state.go, tcp.go) and by sequence numbers (window.go), UDP by time.
//
// [Access.Begin] begins a flow. In a full table one gives way (order.go).
//
// A fast path ([Offload]) may forward datagrams of a flow that the table then does not
// see. The table takes over what that noted before it judges a datagram of the flow,
// lists it, or removes it because it is idle or the table is full (offload.go).
//
// Another process can take over the flows: [Table.Save] hands them out, [Table.SaveChanges]
// what has changed since, and a [Restore] puts them into its table. The order in which
// flows give way is then by when they were seen last.
//
// Any number of goroutines may use a table at once. Each datagram takes the lock
// of one of its 64 shards for a moment; nothing is allocated but for new flows.
//
// Of ours the package imports packet and packet/verdict: which datagrams may begin
// a flow is for the policy to say (package filter).
package flow
