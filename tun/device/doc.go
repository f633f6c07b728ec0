// Package device opens the best available kind of frame I/O: TAPs over io_uring, or TAPs with
// one system call per frame where the kernel or a sandbox denies io_uring. It is the only
// package that names the kinds. A port belongs to the goroutine that opened it.
//
// It imports tun and tun/uring, which falls back to tun/tap.
package device
