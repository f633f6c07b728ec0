// Package device opens the best available kind of frame I/O: TAPs over io_uring or, where the
// kernel or a sandbox denies io_uring, TAPs with one system call per frame. No other package
// chooses between the two.
//
//	Open, Import ──► Port.Lanes ──► lanes of tun/uring
//	                            └─► lanes of tun/tap, and an entry in Port.Fallbacks
//
// It imports tun and tun/uring. Lanes calls the Lanes of the *tap.TAP that [uring.Port] embeds
// if those of tun/uring fail.
package device
