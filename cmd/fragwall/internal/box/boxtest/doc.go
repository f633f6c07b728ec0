// Package boxtest has a kernel in memory for tests of what a box does about devices:
// NICs that tests add, change and remove, and ports of package tuntest. Any goroutine
// may use it.
//
// Only tests import it. It imports box, tun, tun/link, tun/netdev and tun/tuntest.
package boxtest
