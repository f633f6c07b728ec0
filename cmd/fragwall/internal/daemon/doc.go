// Package daemon is what surrounds a running box, of the commands run and sidecar
// alike.
//
//	configuration ──► Startup ──► Daemon.Run ──► box
//	signals, control socket, changed files ──► reload ──► policy
//	box ──► report ──► control socket, status server; events ──► log
//
// [Daemon.Run] is the one life cycle; an [Attachment] says what a command adds to it.
// Run's goroutine makes and removes the devices; each helper is a goroutine that
// ends with Run's context: signals, control socket, status server, watches of files,
// of devices and of the service manager, and the one that writes events.
//
// What is set for the whole process is in process.go, and nowhere else.
//
// The package imports rules, packet/verdict, and of the command's packages box, confine, control,
// datapath, events, exit, history, lastgood, private, report, status and trace, also tun/handover and
// wire. It knows no cobra.
package daemon
