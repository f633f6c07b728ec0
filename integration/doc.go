// Package integration contains the tests of the whole program: the binary as users run it,
// joined to real interfaces, between two hosts with real kernels (package lab).
//
//	socket, ping, packet socket ──► fragwall run ──► socket, packet socket
//
// Each test has its own hosts, devices and process. When a test ends, its cleanup
// ([testing.T.Cleanup]) checks that the process exits with 0, that its counters agree with the
// kernel's, that nothing is left behind, and that no host saw a frame that the other did not
// send.
//
// The tests use the program's command line, configuration and output. They import nothing of it
// except the vocabulary of packet. They need ping, and the right to make namespaces and to open
// /dev/net/tun.
package integration
