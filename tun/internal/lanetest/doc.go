// Package lanetest contains the tests that every kind of lane must pass, and what the tests of
// the packages below tun share: a [Rig] of two ports in a network namespace, with packet
// sockets at their far ends.
//
// Only tests import it. It imports tun, tun/netdev, packet/checksum, packet/packettest and
// tun/lab.
package lanetest
