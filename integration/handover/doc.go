// Command handover measures loss and errors of numbered traffic (package meter) between two
// existing hosts while the box between them is restarted or replaced.
//
//	handover -inside NAMESPACE -outside NAMESPACE [-share S] [-metrics URL]
//
// It prints "ready" when traffic flows, continues until SIGINT or SIGTERM, and prints a report.
// Then it sends the same traffic again for the same time, during which the box must not be
// restarted, and compares the two runs. It exits with 1 if the first run had more lost, duplicated
// or corrupted datagrams, or more TCP retransmissions, than the second one. It also exits with 1 if
// a counter of the metrics at -metrics decreased or vanished.
//
// The namespaces are names of ip-netns(8). The interface eth0 of each namespace has an IPv4 address
// and an IPv6 address.
package main
