// Package selector selects flows, datagrams and frames by the flags --proto, --host, --src, --dst,
// --port, --sport, --dport, --vlan and --from, which all listing commands share.
//
// The input is the command line ([Flags]). The output is a [Selector]: the text of each flag that was
// given. The client sends it as JSON to the running instance, which makes a [Filter] from it. A
// Filter matches a [Tuple].
//
// A Filter is immutable and safe for concurrent use.
//
// Of fragwall's packages, it imports filter, packet, packet/verdict and rules.
package selector
