// Package tun holds the devices: ports that read and write batches of frames,
// and the bridges that join them to network interfaces.
//
// A [Port] lends the frames that it reads until the next read, and takes
// frames to write without keeping them. One goroutine reads a port and one,
// which may be another, writes it; [Port.Send], for single frames, and
// [Port.Close], which wakes the reader, may come from anywhere. [TAP] is a
// kernel device by songgao/water, [Memory] one for tests. Package capture reads
// and writes files of frames.
//
// [Join] puts a TAP and a NIC into a bridge by vishvananda/netlink such that
// the two are one wire: the box neither takes nor sends a frame of its own
// there.
//
// Devices belong to the network namespace of the thread that makes them, so
// [OpenTAP], [Join] and [Junction.Close] are to be called on a thread in it;
// reading and writing goes from any. The package imports nothing of ours.
package tun
