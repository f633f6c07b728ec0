// Package uring has lanes over io_uring: a batch of frames takes one system call, and
// no byte moves between read and write.
//
//	TAP ──► multishot read ──► pool ──► Read, Write ──► submissions ──► TAP
//	NIC ──► program ──► ring of fragments ──┘
//
// Each lane has a ring and a pool of its own, which belong to the goroutine that
// reads, and to its thread. Of fragwall's, the package imports tun, tun/tap and
// tun/internal/gate.
package uring
