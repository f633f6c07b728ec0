// Package control lets the owner of a running instance send it requests: to reload, for the path
// of its configuration file, for its report, and for sequences of records.
//
//	command ──► Instance ──► socket ──► Listener ──► handler
//	            OverHTTP ──► status server
//
// The control socket is in a directory that only its user may enter. Its name is made of the names
// of the two TAPs and of the network namespace, so it is unique per instance. A client sends one
// line: a request and, after a space, a JSON argument. The reply is JSON, or a stream of records. A
// client connects only to instances of its own user or of root.
//
// [Listener.Serve] answers each client on a goroutine of its own, so handlers must be safe for
// concurrent use. The numbers of clients, of streams, and of requests per second are limited. A
// stream ends if its client does not read or disconnects.
//
// The package imports report and exit.
package control
