// Package confine takes from the process, once it is set up, the rights that it
// does not need to forward, to answer, and to take down what it made:
//
//  1. capabilities: all but CAP_NET_ADMIN, for the devices (capabilities(7))
//  2. no_new_privs: no program that it runs could get any back (prctl(2))
//  3. Landlock: files beneath the directories of a [Plan], and no TCP
//     connections or listeners beyond those that are open (landlock(7))
//  4. seccomp: the system calls of the datapath, of teardown, and of a hand-over to
//     another process, which gets descriptors; no sockets but for netlink, no programs, and of bpf(2) what the fast path does with the
//     maps and programs that it has (seccomp(2))
//
// Each holds for all threads, and for those that they start. Where the kernel
// lacks one, the others stand, and the log says so.
//
// The package imports nothing of ours.
package confine
