// Command handover says what becomes of numbered traffic (package meter) between two
// hosts that exist already, while somebody restarts or replaces what joins them.
//
//	handover -inside NAMESPACE -outside NAMESPACE [-share S] [-metrics URL]
//
// It prints "ready" when traffic flows, goes on until a signal ends it, and prints a
// report. Then it sends the same for the same time again, in which nobody is to touch
// anything, and compares: it exits with 1 where more was lost, duplicated or corrupted, or
// more TCP segments were sent again, than in the second run, or where a counter of the
// metrics at -metrics has decreased.
//
// The namespaces are names of ip-netns(8). In each an interface eth0 has one address of
// each family.
package main
