// Command bench compares the throughput, latency and CPU cost of fragwall with those of the kernel's
// bridge with connection tracking, between two hosts.
//
//	inside host ── sender, CPU 0 ──► middle ──► receiver, CPU 1 ── outside host
//
// Each middle has its own network (package lab), which exists for the whole run. A round runs
// all workloads, and each workload runs over its middles one right after the other, so that
// other load on the machine affects all of them equally. The tables show the ratios within each
// round, and their median over the rounds. Senders and receivers are separate processes,
// each bound to a CPU; the middle is not bound. If other processes disturbed a trial, the program
// repeats it while time permits.
//
// [main] reads the command line, sets up the middles (middles.go) and runs the workloads
// (workloads.go), which start senders and receivers (load.go, tcp.go, ping.go) in the namespaces. The
// results become tables (report.go). The program starts copies of itself as sender and receiver
// (generate.go). These use one system call for many datagrams, so that they use little CPU
// time. The program uses only fragwall's command line and configuration. It needs root,
// /dev/net/tun, nft, ethtool, iperf3 and ping, and at least two CPUs.
package main
