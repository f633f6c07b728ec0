// Package reassembly is a slow and obvious model of one datagram in fragments, for tests. It
// keeps all fragments, and checks each of them again when another arrives.
//
// A [Datagram] belongs to one goroutine. The program must not import this package.
package reassembly
