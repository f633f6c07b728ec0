// Package packettest makes frames for tests: IP datagrams, whole, in fragments, or in
// fragments that no honest host would send.
//
// Checksums are computed by gVisor, so that tests compare with code that was not written
// here. The program must not import this package.
package packettest
