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
	burst = 64 // datagrams a system call

	receiveBuffer = 32 << 20 // bytes; the kernel doubles it, and counts what a packet takes up
	sendBuffer    = 4 << 20

	// controlSpace is for the control messages of one datagram: a timestamp and a
	// counter of overflows.
	controlSpace = 128
)

// openUDP opens a nonblocking UDP socket at an address of a host; port 0 has the kernel
// choose. With fragment, the kernel fragments what exceeds the MTU.
func openUDP(h *lab.Host, ipv6, fragment bool) (fd int, local netip.AddrPort, err error) {
	level, discover := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	how := unix.IP_PMTUDISC_DO // DF, so that small datagrams use up no identifications
	if fragment {
		how = unix.IP_PMTUDISC_DONT
	}
	if ipv6 {
		level, discover = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER // whose values are the same
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

// grow sets the size of a buffer, as far as the process has the right to.
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

// localAddress returns the address that a socket is bound to.
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

// batch is room for many datagrams, which one system call sends or receives.
type batch struct {
	messages []message
	buffers  [][]byte
	controls [][]byte
}

// newBatch returns room for datagrams of up to size bytes.
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

// send sends the first n datagrams, each of its whole buffer, and returns how many the
// kernel took.
func (b *batch) send(fd, n int) (int, error) {
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), nil
}

// receive receives what is there, and waits for nothing.
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

// datagram returns the i-th that was received, when the kernel received it, in
// nanoseconds since 1970, and how many datagrams have overflowed the socket's buffer so
// far.
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
