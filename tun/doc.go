// Package tun is the contract of frame I/O: a [Frame] with what was left for the
// NIC to do ([Offload]), a [Lane] by which frames go from one device to another, and
// a [Port], the device that makes lanes.
//
//	Port ──► Lane.Read ──► (wire) ──► Lane.Write ──► Port
//
// A lane lends the frames that it reads until the next read, and keeps none that it
// is given to write. One goroutine owns it; [Lane.Close] may come from anywhere and
// wakes the reader, as does [Lane.Hold], which has it stop between two frames. Each queue keeps the order of its frames, and so does each lane.
// All frames between two IP addresses come by one queue.
//
// Each kind of frame I/O is a package of its own below this one, and tun/device
// opens the best there is. tun/link joins a port's device to a NIC.
//
// Of fragwall's, the package imports packet/checksum alone.
package tun
