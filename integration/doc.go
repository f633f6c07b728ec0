// Package integration holds the tests of the whole program: the binary as
// users run it, joined to real interfaces, between two hosts with real kernels
// (package lab).
//
//	socket, ping, packet socket ──► fragwall run ──► socket, packet socket
//
// Each test has hosts, devices and a process of its own, and [testing.T]'s
// cleanup holds each to the same: the process ends with 0, its counters agree
// with the kernel's, nothing of it is left, and no host ever saw a frame that
// the other did not send.
//
// The tests know the program by its command line, its configuration and its
// output, and import nothing of it but the vocabulary of packet. They need the
// right to make namespaces and to open /dev/net/tun, and ping.
package integration
