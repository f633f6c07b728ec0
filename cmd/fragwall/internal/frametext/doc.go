// Package frametext describes a frame on one line, as tcpdump -n does without -v: addresses, ports,
// flags and lengths of ARP, IPv4, IPv6, their fragments, UDP, TCP and ICMP; for other protocols the
// addresses, the name and the length. It does not decode the payload of UDP and TCP. TCP sequence
// numbers are absolute, as with tcpdump -S. A test compares the output with tcpdump's.
//
// The input is a frame and the output is text. The package keeps no state.
//
// It imports packet and packet/verdict for decoding, and rules for the names of protocols.
package frametext
