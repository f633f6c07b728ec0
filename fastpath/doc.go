// Package fastpath has the kernel carry out what user space decided already: a
// program at each side's device (eBPF, TCX, Linux 6.6) forwards the frames of known
// flows, and drops those of denied ones. Whatever it does not know, or is in doubt
// about, takes the way over the TAP, as all frames do without it.
//
// In come lessons: verdicts of the lanes that depend on nothing but the key of a flow
// ([FastPath.Learn]). Out come counters, and what the program noted of flows: user
// space reads and writes both as memory that it shares with the program. Only the
// keys of flows are entered and removed by system calls.
//
// [FastPath] belongs to whoever opened it; its methods may be called from any
// goroutine. The program is in bpf/, in C, compiled by bpf2go: "make bpf" after a
// change.
//
// Only this package, tun/tap and tun/shared import cilium/ebpf. Of fragwall's it imports
// wire, filter, filter/flow, packet, packet/verdict and tun/shared.
package fastpath
