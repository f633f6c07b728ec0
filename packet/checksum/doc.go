// Package checksum computes and verifies the checksums of IPv4, ICMP, TCP, UDP and SCTP:
// the Internet checksum (RFC 1071) and CRC32c (RFC 9260 appendix A).
//
// Its functions are pure and allocate nothing.
package checksum
