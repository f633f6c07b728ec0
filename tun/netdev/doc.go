// Package netdev has what other packages need of the kernel's network devices: what
// a link is like, its settings by ethtool and sysctl, and classifiers that redirect.
//
// Devices belong to the network namespace of the calling thread. The package keeps
// nothing, and imports nothing of fragwall's.
package netdev
