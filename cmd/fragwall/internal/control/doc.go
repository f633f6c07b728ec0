// Package control lets the owner of a running instance ask it: to reload, which
// file it runs with, for its report, and for whatever is a sequence of records.
//
//	command ──► Instance ──► socket ──► Listener ──► handler
//	            OverHTTP ──► status server
//
// The control socket is in a directory that only its user may enter, under a name
// made of the two TAPs and of the network namespace, which together no two
// instances have. A client sends a line: a request and, after a space, an argument as
// JSON. It gets JSON, or a stream of records. It asks only instances of its own user
// or of root.
//
// [Listener.Serve] answers each client on a goroutine of its own, so handlers have
// to be safe for concurrent use. Clients, streams and requests in a second are
// bounded, and a client of a stream that does not read, or goes away, ends it.
//
// The package imports report and exit.
package control
