// Package middle sets up the device under test between the hosts of a lab: fragwall, or the
// kernel's bridge with connection tracking in its place.
//
//	lab.Network ──► NewBox    fragwall run, a process in the middle namespace
//	            └─► NewBridge a bridge there, with nftables rules
//
// [Box] uses only fragwall's command line, configuration and output. [Foreign] measures how much CPU
// time other processes use. A [Program] is a command that measures, and that runs itself as traffic
// generator.
//
// The programs attack and bench share the package. Of fragwall's packages, it imports only tun/lab.
package middle
