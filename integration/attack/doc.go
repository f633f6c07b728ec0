// Command attack measures how much honest traffic survives a flood: with fragwall between two
// hosts, with the kernel's connection tracking bridge in its place, and with only a cable.
//
//	inside host ── honest sender, probe, TCP ─┐
//	               generator (a process) ─────┴──► middle ──► outside host
//
// Each trial has its own namespaces (package lab), devices and processes. A trial measures how much
// honest traffic arrived and how much CPU time and memory the middle used. The generator is a
// separate process, bound to the first CPU, so that its CPU time is not counted for fragwall. All
// processes share one machine. A trial over a cable shows how much traffic is lost because of that
// alone.
//
// [main] reads the command line and runs a list of trials (plans.go). A trial (trial.go) sets
// up a middle (package middle), starts the traffic (honest.go, stream.go, flood.go,
// generator.go) and returns figures, which become tables (report.go). The program uses only
// fragwall's command line, configuration and output. It needs root or user namespaces,
// /dev/net/tun, and nft.
package main
