// Package lanetest contains the tests that every kind of lane must pass, and helpers for the
// tests of the packages below tun. A [Rig] has two ports in a network namespace, and a packet
// socket on the device of each.
//
// Only tests import it. It imports tun, tun/lab, tun/netdev, tun/ufo, packet, packet/checksum and
// packet/packettest.
package lanetest
