// Package frametext describes a frame on one line, as tcpdump -n does without -v:
// addresses, ports, flags and lengths of ARP, IPv4, IPv6, their fragments, UDP, TCP and
// ICMP; of other protocols the addresses, the name and the length. It does not look
// into what UDP and TCP carry, and TCP's sequence numbers are absolute, as with
// tcpdump -S. A test holds it against tcpdump.
//
// In comes a frame, out goes text. The package keeps nothing.
//
// It imports packet and packet/verdict for decoding, and rules for the names of protocols.
package frametext
