// Command bench measures, side by side, what fragwall and the kernel's
// connection tracking bridge cost the traffic between two hosts.
//
//	inside host ── sender, CPU 0 ──► middle ──► receiver, CPU 1 ── outside host
//
// Each middle has a network of its own (package lab) that stays up for the
// whole run. A workload goes over its middles one right after the other, a
// round over all workloads, so that what else the machine does hits each alike;
// what is compared is the ratio within a round, and the median of the rounds.
// Senders and receivers are processes of their own, each bound to a CPU; the
// middle is not. A trial that other processes disturbed is run again, as often
// as the time allows.
//
// [main] reads the command line, puts up the middles (middles.go) and runs the
// workloads (workloads.go), which start senders and receivers (load.go, tcp.go)
// in the namespaces; the results become tables (report.go). The program runs
// itself as sender and receiver (generate.go), with system calls for many
// datagrams at once, so that they cost little. It knows fragwall by its command
// line and its configuration. It needs root, /dev/net/tun, nft, ethtool and
// iperf3, and at least two CPUs.
package main
