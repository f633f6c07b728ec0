package meter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/tun/lab"
)

const (
	burst = 64 // maximum number of datagrams per system call

	receiveBuffer = 32 << 20 // bytes; the kernel doubles the value, and counts the overhead of packets
	sendBuffer    = 4 << 20

	// controlSpace is the size of the control messages of a datagram in bytes: a timestamp and an
	// overflow counter.
	controlSpace = 128
)

// openUDP opens a nonblocking UDP socket on an address of a host, with a port that the kernel chooses.
// With fragment, the kernel fragments datagrams that exceed the MTU.
func openUDP(h *lab.Host, ipv6, fragment bool) (fd int, local netip.AddrPort, err error) {
	level, discover := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	how := unix.IP_PMTUDISC_DO // sets DF, so that small datagrams need no identifications
	if fragment {
		how = unix.IP_PMTUDISC_DONT
	}
	if ipv6 {
		level, discover = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER // the values are the same
	}
	err = h.Do(func() error {
		fd, err = unix.Socket(domainOf(ipv6), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, level, discover, how),
			grow(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer),
			grow(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
			unix.Bind(fd, sockaddr(netip.AddrPortFrom(h.Addr(ipv6), 0))),
		)
	})
	if err != nil {
		return 0, local, fmt.Errorf("open udp socket: %w", err)
	}
	local, err = localAddress(fd)
	return fd, local, err
}

// grow sets the size of a socket buffer: by the option force, which needs CAP_NET_ADMIN, or otherwise
// by option, which is limited by a sysctl.
func grow(fd, force, option, bytes int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes)
	if errors.Is(err, unix.EPERM) {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bytes)
	}
	return err
}

func domainOf(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// localAddress returns the address to which a socket is bound.
func localAddress(fd int) (netip.AddrPort, error) {
	a, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("socket address of type %T", a)
}

// message is struct mmsghdr (sendmmsg(2)).
type message struct {
	unix.Msghdr
	length uint32
	_      uint32
}

// batch holds the buffers of datagrams that one system call sends or receives.
type batch struct {
	messages []message
	buffers  [][]byte
	controls [][]byte
}

// newBatch returns a batch of burst datagrams of up to size bytes.
func newBatch(size int) *batch {
	b := &batch{make([]message, burst), make([][]byte, burst), make([][]byte, burst)}
	vectors := make([]unix.Iovec, burst)
	for i := range b.messages {
		b.buffers[i], b.controls[i] = make([]byte, size), make([]byte, controlSpace)
		vectors[i].Base = &b.buffers[i][0]
		vectors[i].SetLen(size)
		b.messages[i].Iov = &vectors[i]
		b.messages[i].SetIovlen(1)
	}
	return b
}

// send sends the first n buffers, each as a datagram. It returns the number that the kernel accepted.
func (b *batch) send(fd, n int) (int, error) {
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), nil
}

// receive receives available datagrams without waiting, and returns their number.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.messages {
		b.messages[i].Control = &b.controls[i][0]
		b.messages[i].SetControllen(controlSpace)
	}
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])), burst, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// datagram returns the i-th received datagram, the time when the kernel received it, in nanoseconds
// since 1970, and the number of datagrams that did not fit into the socket's receive buffer so far.
func (b *batch) datagram(i int) (data []byte, received int64, overflowed uint32) {
	m := &b.messages[i]
	control := b.controls[i][:m.Controllen]
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(control)) {
			break
		}
		value := control[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level != unix.SOL_SOCKET:
		case h.Type == unix.SCM_TIMESTAMPNS && len(value) >= int(unsafe.Sizeof(unix.Timespec{})):
			received = (*unix.Timespec)(unsafe.Pointer(&value[0])).Nano()
		case h.Type == unix.SO_RXQ_OVFL && len(value) >= 4:
			overflowed = *(*uint32)(unsafe.Pointer(&value[0]))
		}
		control = control[min(unix.CmsgSpace(len(value)), len(control)):]
	}
	return b.buffers[i][:min(int(m.length), len(b.buffers[i]))], received, overflowed
}
