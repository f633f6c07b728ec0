// Command handover reports what happens to numbered traffic (package meter) between two
// existing hosts while the box that joins them is restarted or replaced.
//
//	handover -inside NAMESPACE -outside NAMESPACE [-share S] [-metrics URL]
//
// It prints "ready" when traffic flows, continues until a signal ends it, and prints a report.
// Then it sends the same traffic again for the same time, during which nothing must be changed,
// and compares. It exits with 1 if more was lost, duplicated or corrupted, or more
// TCP segments were retransmitted, than in the second run, or if a counter of the metrics at
// -metrics decreased.
//
// The namespaces are names of ip-netns(8). In each, an interface eth0 has one address of each
// family.
package main
