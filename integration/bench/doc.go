// Command bench measures, side by side, what fragwall and the kernel's connection tracking
// bridge cost the traffic between two hosts.
//
//	inside host ── sender, CPU 0 ──► middle ──► receiver, CPU 1 ── outside host
//
// Each middle has its own network (package lab), which stays up for the whole run. A round runs
// all workloads, and each workload runs over its middles one right after the other, so that
// other load on the machine affects all of them alike. The tables compare ratios within a
// round, and give the median over the rounds. Senders and receivers are separate processes,
// each bound to a CPU; the middle is not bound. A trial that other processes disturbed is
// repeated, as often as the time allows.
//
// [main] reads the command line, sets up the middles (middles.go) and runs the workloads
// (workloads.go), which start senders and receivers (load.go, tcp.go) in the namespaces. The
// results become tables (report.go). The program runs itself as sender and receiver
// (generate.go). They send and receive many datagrams per system call, so that they cost
// little. The program uses only fragwall's command line and configuration. It needs root,
// /dev/net/tun, nft, ethtool and iperf3, and at least two CPUs.
package main
