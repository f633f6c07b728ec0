// Package fastpath carries out verdicts in the kernel that user space has already made. A program
// at each side's device (eBPF, TCX, Linux 6.6) forwards the frames of known flows and drops those
// of denied ones. It passes up all frames that it does not know or is not sure about: these go
// through the TAP, as all frames do without a fast path.
//
// The input is lessons: verdicts of the lanes that depend only on the key of a flow
// ([FastPath.Learn]). The output is counters, and what the program noted about flows. User space
// reads and writes both in memory that it shares with the program. Only adding and removing the
// keys of flows takes system calls.
//
// The caller that opened a [FastPath] owns it. Any goroutine may call its methods. The program is
// written in C, in bpf/, and compiled by bpf2go: run "make bpf" after a change.
//
// Only this package, tun/tap and tun/shared import cilium/ebpf. Of fragwall's packages, it imports
// wire, filter, filter/flow, packet, packet/verdict and tun/shared.
package fastpath
