// Package lab makes two hosts and a place between them for the wire under
// trial: network namespaces, joined by veth pairs, with real kernels at both
// ends.
//
//	inside host ── veth ── middle ── veth ── outside host
//	eth0                nic-in  nic-out              eth0
//
// The namespaces have no names and hold no files: they live as long as
// something of this process is in them, so that nothing is left behind however
// the process ends. [Namespace.Do] runs a function on a thread in one; a
// socket that it opens there stays there, whoever uses it.
//
// A [Tap] sends and sees frames as they are on the wire.
//
// `fragwall demo` and the tests share the package. It imports packet/verdict for the
// sides, and nothing else of ours.
package lab
