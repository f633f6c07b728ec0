// Package checksum computes and compares the checksums of IPv4, ICMP, TCP, UDP
// and SCTP.
//
// In come the bytes that a checksum covers; out goes the sum (the Internet
// checksum, RFC 1071, or CRC32c, RFC 9260 appendix A). It is pure, allocates
// nothing, and may be used by any goroutine. It imports nothing of ours.
package checksum
