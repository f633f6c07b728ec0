// Package selector selects flows, datagrams and frames by the flags --proto, --host,
// --src, --dst, --port, --sport, --dport, --vlan and --from, which all commands that
// list something share.
//
// In comes the command line ([Flags]); out goes a [Selector], the text of each flag
// that was given, which is sent to the running instance as JSON, and there a
// [Filter], which matches a [Tuple].
//
// A Filter does not change and may be used by any number of goroutines.
//
// Of ours the package imports filter, packet, packet/verdict and rules.
package selector
