// Package middle puts what is to be measured between the hosts of a lab:
// fragwall, or the kernel's bridge with connection tracking in its place.
//
//	lab.Network ──► NewBox    fragwall run, a process in the middle namespace
//	            └─► NewBridge a bridge there, with nftables rules
//
// Both are taken from outside: [Box] knows fragwall by its command line, its
// configuration and its output. [Foreign] says whether other processes had a
// part in what was measured. A [Program] is a command that measures, and its
// own generator of traffic.
//
// The programs attack and bench share the package. It imports lab alone.
package middle
