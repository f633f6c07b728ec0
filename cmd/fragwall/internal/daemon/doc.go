// Package daemon runs everything around a running box, for the commands run and sidecar alike.
//
//	configuration ──► Startup ──► Daemon.Run ──► box
//	signals, control socket, changed files ──► reload ──► policy
//	box ──► report ──► control socket, status server; events ──► log
//
// [Daemon.Run] is the life cycle of both commands. An [Attachment] holds what a command adds to it.
// The goroutine of Run creates and removes the devices. Each helper is a goroutine that ends with
// Run's context: for signals, the control socket, the status server, the watches of files and
// devices, the watchdog of the service manager, and the events.
//
// process.go has all settings that apply to the whole process.
//
// The package imports rules, wire, fastpath, packet/verdict and tun/handover, and of the command's
// packages box, confine, control, datapath, events, exit, history, inspect, lastgood, listing,
// private, report, status, takeover and trace. It does not use cobra.
package daemon
