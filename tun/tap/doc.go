// Package tap provides TAP devices, and lanes between them that take one system call per frame.
//
//	kernel ──► queue of a TAP ──► Lane.Read ──► (wire) ──► Lane.Write ──► queue of a TAP
//
// songgao/water opens TAPs without offload, vishvananda/netlink those with virtio-net headers.
// The kernel's NAPI threads, where available, send the frames of the latter. All frames between
// two IP addresses use one queue: an eBPF program on the TAP (cilium/ebpf) selects it, or the
// TAP has only one queue. A second program refuses whole datagrams while a queue is long,
// before single fragments would be lost. A third program, at a NIC, delivers fragments by a
// [Ring] in shared memory to lanes that support it. The programs are in bpf/, in C, compiled by
// bpf2go: run "make bpf" after a change.
//
// A TAP belongs to the goroutine that opened it, and each lane to one goroutine. [Pair],
// [Writer], [Backlog] and [Ring] are for other kinds of lanes between TAPs, such as tun/uring.
// The package imports tun, tun/netdev, tun/shared, tun/ufo and tun/internal/gate.
package tap
