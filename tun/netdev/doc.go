// Package netdev wraps the kernel interfaces for network devices that other packages
// need: the state of links, settings by ethtool and sysctl, and redirects by traffic
// control.
//
// Devices belong to the network namespace of the calling thread. The package keeps no
// state.
package netdev
