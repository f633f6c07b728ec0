// Package daemon runs everything around a running box, for the commands run and sidecar alike.
//
//	configuration ──► Startup ──► Daemon.Run ──► box
//	signals, control socket, changed files ──► reload ──► policy
//	box ──► report ──► control socket, status server; events ──► log
//
// [Daemon.Run] is the one life cycle; an [Attachment] holds what a command adds to it. Run's
// goroutine makes and removes the devices. Each helper is a goroutine that ends with Run's context:
// for signals, the control socket, the status server, the watches of files, of devices and of the
// service manager, and for writing events.
//
// All settings of the whole process are made in process.go.
//
// The package imports rules, packet/verdict, and of the command's packages box, confine, control,
// datapath, events, exit, history, lastgood, private, report, status and trace, also tun/handover and
// wire. It does not use cobra.
package daemon
