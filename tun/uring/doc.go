// Package uring provides lanes over io_uring: a batch of frames takes one system call, and no
// byte is copied between read and write.
//
//	TAP ──► multishot read ──► pool ──► Read, Write ──► submissions ──► TAP
//	NIC ──► program ──► ring of fragments ──┘
//
// Each lane has its own ring and pool, which belong to the goroutine that reads, and to its
// thread. The package imports tun, tun/tap and tun/internal/gate.
package uring
