// Package boxtest provides a kernel in memory, to test how a box handles devices: NICs that tests
// add, change and remove, ports of package tuntest, and a fast path. Any goroutine may use it.
//
// Only tests import it. It imports box, fastpath, filter, filter/flow, packet, packet/verdict, tun,
// tun/link, tun/netdev, tun/tuntest and wire.
package boxtest
