// Command attack measures what is left of honest traffic beside a flood: with
// fragwall between two hosts, with the kernel's own connection tracking bridge
// in its place, and with nothing but a cable.
//
//	inside host ── honest sender, probe, TCP ─┐
//	               generator (a process) ─────┴──► middle ──► outside host
//
// Each trial has namespaces (package lab), devices and processes of its own,
// and ends with what came and what it cost. The generator is a process by
// itself, bound to the first CPU, so that its work can be told from the box's;
// all share the machine, and a trial over a cable tells what that alone costs.
//
// [main] reads the command line and runs a list of trials (plans.go); a trial
// (trial.go) puts up a middle (package middle), starts the traffic
// (honest.go, stream.go, flood.go, generator.go) and returns figures, of which
// tables are made (report.go). It knows fragwall by its command line, its
// configuration and its output. It needs root, or user namespaces, /dev/net/tun
// and nft.
package main
