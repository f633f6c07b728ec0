// Command attack measures how much honest traffic survives a flood: with fragwall between two
// hosts, with the kernel's connection tracking bridge in its place, and with only a cable.
//
//	inside host ── honest sender, probe, TCP ─┐
//	               generator (a process) ─────┴──► middle ──► outside host
//
// Each trial has its own namespaces (package lab), devices and processes. Its result is what
// arrived and what it cost. The generator is a separate process, bound to the first CPU, so
// that its CPU time can be told from the box's. All share the machine; a trial over a cable
// shows the cost of that alone.
//
// [main] reads the command line and runs a list of trials (plans.go). A trial (trial.go) sets
// up a middle (package middle), starts the traffic (honest.go, stream.go, flood.go,
// generator.go) and returns figures, which become tables (report.go). The program uses only
// fragwall's command line, configuration and output. It needs root, or user namespaces,
// /dev/net/tun and nft.
package main
