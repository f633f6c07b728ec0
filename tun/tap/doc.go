// Package tap has TAP devices of the kernel's, and lanes between them that take one
// system call a frame.
//
//	kernel ──► queue of a TAP ──► Lane.Read ──► (wire) ──► Lane.Write ──► queue of a TAP
//
// songgao/water opens TAPs without offload, vishvananda/netlink those with virtio-net
// headers, whose frames leave on the kernel's NAPI threads where it has them. All frames
// between two IP addresses come by one queue: an eBPF program on the TAP steers them
// (cilium/ebpf), or the TAP has one queue only. Another one refuses whole datagrams
// while a queue is long, before single fragments would be lost. A third one, at a NIC,
// has fragments reach lanes that can take them by a [Ring] in shared memory. The programs
// are in bpf/, in C, compiled by bpf2go: "make bpf" after a change.
//
// A TAP belongs to the goroutine that opened it; each lane to one of its own. [Pair],
// [Writer], [Backlog] and [Ring] are for other kinds of lanes between TAPs, as tun/uring. Of
// fragwall's, the package imports tun, tun/netdev, tun/shared, tun/ufo and tun/internal/gate.
package tap
