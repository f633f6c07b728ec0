// Package confine drops rights of the process once it is set up. The process keeps those that it
// needs to forward, to answer requests, and to remove what it made:
//
//  1. capabilities: all except CAP_NET_ADMIN, which it needs for the devices (capabilities(7))
//  2. no_new_privs: no program that it executes can regain rights (prctl(2))
//  3. Landlock: access only to files beneath the directories of a [Plan], and no new TCP
//     connections or listeners (landlock(7))
//  4. seccomp: only the system calls of the datapath, of teardown, and of a hand-over to another
//     process, which receives descriptors; no sockets except netlink; no execution of programs;
//     and of bpf(2) only what the fast path does with its existing maps and programs (seccomp(2))
//
// Each applies to all threads, and to those that they start. If the kernel lacks one, the others
// still apply, and a log message names the missing one.
//
// The package imports no other package of fragwall.
package confine
