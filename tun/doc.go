// Package tun defines the interfaces of frame I/O: a [Frame], with the work that is left to the
// NIC ([Offload]); a [Lane], which moves frames from one device to another; and a [Port], the
// device that makes lanes. The kinds of frame I/O are the packages below this one; tun/device
// opens the best that is available. tun/link joins a port's device to a NIC.
//
//	Port ──► Lane.Read ──► (wire) ──► Lane.Write ──► Port
//
// The frames that a lane reads are valid until the next read. A lane does not keep the frames
// that it writes. One goroutine owns a lane. [Lane.Close] may be called from any goroutine and
// wakes the reader, as does [Lane.Hold], which stops the reader between two frames. Each queue
// and each lane keeps the order of its frames. All frames between two IP addresses use one
// queue.
//
// The package imports only packet/checksum of this module.
package tun
