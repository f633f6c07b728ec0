// Package lab makes two hosts and a middle between them: network namespaces, joined by veth
// pairs, so that the wire is tested with real kernels at both ends.
//
//	inside host ── veth ── middle ── veth ── outside host
//	eth0                nic-in  nic-out              eth0
//
// The namespaces have no names and no files. They exist while this process has descriptors of
// them, so that nothing remains after the process ends, even if it is killed. [Namespace.Do] runs a
// function on a thread in a namespace. A socket that it opens stays in that namespace,
// whichever goroutine uses it.
//
// A [Tap] sends and receives frames as they are on the wire.
//
// `fragwall demo` and the tests use the package.
package lab
