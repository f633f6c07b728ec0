package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ListenUDP opens a socket at a port of the host's address. With port 0 the kernel
// chooses one.
func (h *Host) ListenUDP(ipv6 bool, port uint16) (c *net.UDPConn, err error) {
	err = h.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr(ipv6), port)))
		return err
	})
	return c, err
}

// ListenTCP opens a listening socket at a port of the host's address.
func (h *Host) ListenTCP(ipv6 bool, port uint16) (l *net.TCPListener, err error) {
	err = h.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.Addr(ipv6), port)))
		return err
	})
	return l, err
}

// DialTCP connects to a port of another host, with a timeout.
func (h *Host) DialTCP(to netip.AddrPort, timeout time.Duration) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), timeout)
		return err
	})
	return c, err
}

// ListenIP opens a raw socket that receives every packet of a protocol for the host's
// address, reassembled if it arrived in fragments, whatever its contents (raw(7)). Reads
// return the payload.
func (h *Host) ListenIP(ipv6 bool, protocol uint8) (c *net.IPConn, err error) {
	network := fmt.Sprintf("ip%d:%d", map[bool]int{false: 4, true: 6}[ipv6], protocol)
	err = h.Do(func() (err error) {
		c, err = net.ListenIP(network, &net.IPAddr{IP: h.Addr(ipv6).AsSlice()})
		return err
	})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var grown error
	err = raw.Control(func(fd uintptr) { grown = growBuffer(int(fd)) })
	return c, errors.Join(err, grown)
}

// Tap is a packet socket on a host's interface, for frames as on the wire (packet(7)).
type Tap struct {
	file *os.File
	raw  syscall.RawConn
}

// OpenTap opens a packet socket that receives every frame that arrives at an interface of
// the namespace from then on.
func (n *Namespace) OpenTap(nic string) (t *Tap, err error) {
	err = n.Do(func() error {
		link, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t = &Tap{file: os.NewFile(uintptr(fd), "packet socket")}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			growBuffer(fd),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: link.Index}),
		)
	})
	if err == nil {
		t.raw, err = t.file.SyscallConn()
	}
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %q: %w", nic, err)
	}
	return t, nil
}

// growBuffer enlarges the receive buffer of a socket, as far as the process may.
func growBuffer(fd int) error {
	const bytes = 64 << 20
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	if errors.Is(err, unix.EPERM) {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	return err
}

// bigEndian converts a number to network byte order, as the kernel expects it.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Close closes the socket.
func (t *Tap) Close() error { return t.file.Close() }

// Send puts frames on the wire as they are.
func (t *Tap) Send(frames ...[]byte) error {
	for _, f := range frames {
		if _, err := t.file.Write(f); err != nil {
			return fmt.Errorf("send frame of %d bytes: %w", len(f), err)
		}
	}
	return nil
}

// Between returns frames with their MAC addresses set, so that they seem to go from one
// host to the other.
func Between(from, to *Host, frames ...[]byte) [][]byte {
	for _, f := range frames {
		copy(f, to.MAC)
		copy(f[6:], from.MAC)
	}
	return frames
}

// Receive returns the next frame, including its tags. At the deadline, the error wraps
// [os.ErrDeadlineExceeded].
func (t *Tap) Receive(deadline time.Time) (frame []byte, err error) {
	if err := t.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var failure error
	err = t.raw.Read(func(fd uintptr) bool {
		frame, failure = receive(int(fd))
		return failure != unix.EAGAIN
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, fmt.Errorf("receive frame: %w", err)
	}
	return frame, nil
}

// Drain returns the frames that have arrived, without waiting.
func (t *Tap) Drain() (frames [][]byte, err error) {
	var failure error
	err = t.raw.Control(func(fd uintptr) {
		for failure == nil {
			var frame []byte
			if frame, failure = receive(int(fd)); failure == nil {
				frames = append(frames, frame)
			}
		}
	})
	if failure != unix.EAGAIN {
		err = errors.Join(err, failure)
	}
	return frames, err
}

// Ignore drops further frames from a source MAC address in the kernel.
func (t *Tap) Ignore(source net.HardwareAddr) error {
	high, low := binary.BigEndian.Uint32(source), binary.BigEndian.Uint16(source[4:])
	filter := []unix.SockFilter{ // classic BPF, with offsets in the frame
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: high, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 10},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(low), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32},
	}
	var failure error
	err := t.raw.Control(func(fd uintptr) {
		failure = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	return errors.Join(err, failure)
}

// receive returns the next frame of a packet socket.
func receive(fd int) ([]byte, error) {
	frame, control := make([]byte, 1<<16+18), make([]byte, 128)
	n, controls, _, _, err := unix.Recvmsg(fd, frame[4:], control, 0)
	if err != nil {
		return nil, err
	}
	return withTag(frame[:4+n], control[:controls])
}

// withTag inserts the outermost VLAN tag, which the kernel removes from the frame and
// passes separately (struct tpacket_auxdata). The frame has 4 free bytes before it.
func withTag(frame, control []byte) ([]byte, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("parse control messages: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			copy(frame, frame[4:16])
			binary.BigEndian.PutUint16(frame[12:], aux.Vlan_tpid)
			binary.BigEndian.PutUint16(frame[14:], aux.Vlan_tci)
			return frame, nil
		}
	}
	return frame[4:], nil
}
