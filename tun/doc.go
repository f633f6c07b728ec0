// Package tun holds the devices: TAPs, the lanes by which frames go from one
// to another, and how they are joined to network interfaces.
//
//	NIC ══ TAP ──► Lane.Read ──► (wire) ──► Lane.Write ──► TAP ══ NIC
//
// A [Lane] is one way between two devices. It lends the frames that it reads
// until the next read, and keeps none that it is given to write. One goroutine
// owns it; [Lane.Close] may come from anywhere and wakes the reader. A [TAP]
// has a lane a direction and queue: [Ring] over io_uring, which takes a batch a
// system call and moves no byte between read and write; [Plain] with a system
// call a frame, where io_uring is missing or forbidden. [Memory] is a device
// for tests. songgao/water opens plain TAPs, vishvananda/netlink those with
// virtio-net headers, whose frames leave on NAPI threads of the kernel's where
// it lets us have them.
//
// Each queue keeps the order of its frames, and so does each lane. All frames
// between two IP addresses come by one queue: an eBPF program on the TAP sees to
// that, or the TAP has one queue only.
//
// With offload, frames carry what was left for the NIC to do, and one may
// stand for many packets; see [Offload].
//
// [Join] makes a TAP and a NIC one wire, by a redirect or a bridge of the
// kernel's: the box neither takes nor sends a frame of its own there.
//
// Devices belong to the network namespace of the thread that makes them, so
// [OpenTAP], [TAP.Missed], [Join], [Release] and [Junction.Close] are to be called on a
// thread in it; lanes work on any. Of ours the package imports
// packet/checksum alone.
package tun
