// Package integration contains the tests of the whole program: the binary as users run it,
// joined to real interfaces, between two hosts with real kernels (package lab).
//
//	socket, ping, packet socket ──► fragwall run ──► socket, packet socket
//
// Each test has its own hosts, devices and process. When a test ends, its cleanup
// ([testing.T.Cleanup]) checks that the process exits with 0, that its counters agree with the
// kernel's, that the configuration of the namespace is as before, and that no host received a frame
// that the other host did not send.
//
// Most tests use only the program's command line, configuration and output, and the types of package
// packet. They need ping, ip, nft and conntrack, the right to make namespaces, and /dev/net/tun.
package integration
