// Package selector selects flows, datagrams and frames by the flags --proto, --host, --src, --dst,
// --port, --sport, --dport, --vlan and --from, which all listing commands share.
//
// The input is the command line ([Flags]). The output is a [Selector]: the text of each flag that was
// given. The client sends it to the running instance as JSON, which makes a [Filter] from it. A
// Filter matches a [Tuple].
//
// A Filter is immutable, and any number of goroutines may use it.
//
// Of fragwall's packages, it imports filter, packet, packet/verdict and rules.
package selector
