// Package control lets the owner of a running instance ask it: to reload, which
// file it runs with, and for its report.
//
//	command ──► Reload, OverSocket ──► socket ──► Listener ──► handler
//	            OverHTTP ────────────► status server
//
// The control socket is in a directory that only its user may enter, under a name
// made of the two TAPs and of the network namespace, which together no two
// instances have. A client sends a line and gets JSON. It asks only instances of
// its own user or of root.
//
// [Listener.Serve] answers each client on a goroutine of its own, so handlers have
// to be safe for concurrent use.
//
// The package imports report and exit.
package control
