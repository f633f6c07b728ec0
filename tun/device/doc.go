// Package device opens the best kind of frame I/O that there is: TAPs over io_uring, or
// with a system call a frame where the kernel or a sandbox denies that. It is the one
// place that names the kinds. A port belongs to the goroutine that opened it.
//
// Of fragwall's, it imports tun and tun/uring, which falls back to tun/tap.
package device
