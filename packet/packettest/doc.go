// Package packettest makes frames for tests: IP datagrams, whole, cut into
// fragments, or cut in ways that no honest host would.
//
// In comes what a datagram should be; out go frames. Checksums are gVisor's, so
// that tests compare with what nobody here wrote. No package of the program may
// import it.
package packettest
