package lanetest

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/lab"
)

// Socket is a packet socket on a device (packet(7)), with virtio-net headers (PACKET_VNET_HDR). It
// receives the frames that arrive on the device.
type Socket struct {
	File *os.File
}

// OpenSocket opens a socket on a device in a namespace.
func OpenSocket(t testing.TB, n *lab.Namespace, device string) *Socket {
	t.Helper()
	s := &Socket{}
	var denied error
	Do(t, n, func() error {
		ifindex, err := index(device)
		if err != nil {
			return err
		}
		const protocol = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.File = os.NewFile(uintptr(fd), "packet socket on "+device)
		// Only root of the initial user namespace may have such a large buffer.
		denied = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifindex}),
		)
	})
	t.Cleanup(func() { _ = s.File.Close() })
	Require(t, denied)
	return s
}

func index(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// Send sends a frame through the device. If the device is a TAP, a lane reads the frame.
func (s *Socket) Send(f tun.Frame) error {
	b := make([]byte, tun.HeaderSize, tun.HeaderSize+len(f.Data))
	f.Offload.Encode(b)
	_, err := s.File.Write(append(b, f.Data...))
	return err
}

// Receive returns the next frame that arrives on the device, or an error after [Timeout].
func (s *Socket) Receive() (tun.Frame, error) {
	b := make([]byte, 1<<17)
	if err := s.File.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
		return tun.Frame{}, err
	}
	n, err := s.File.Read(b)
	if errors.Is(err, unix.ENETDOWN) { // reported once after the device was down
		n, err = s.File.Read(b)
	}
	if err != nil || n < tun.HeaderSize {
		return tun.Frame{}, fmt.Errorf("received %d bytes: %w", n, err)
	}
	f := tun.Frame{Data: b[tun.HeaderSize:n]}
	f.Offload.Decode(b)
	return f, nil
}
