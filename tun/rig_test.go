package tun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/integration/lab"
)

// rig is lanes from one device to another under trial, and the far ends of
// the devices.
type rig struct {
	lanes   []Lane
	offload bool
	// send has a frame come in by the first device, receive returns the next
	// that left by the second, or an error after a while.
	send    func(Frame) error
	receive func() (Frame, error)
	replies func() (Frame, error) // what comes back from the first

	space    *lab.Namespace // nil where there is no kernel device
	from, to *TAP
}

// forward reads and writes until the lanes are closed, and hands each batch to
// change before.
func (r *rig) forward(change func(Lane, []Frame) []Frame) (wait func() error) {
	var group sync.WaitGroup
	ends := make(chan error, len(r.lanes))
	for _, l := range r.lanes {
		group.Go(func() {
			for {
				frames, err := l.Read()
				if err != nil {
					ends <- err
					return
				}
				// A flood may find no room; who counts frames misses those.
				if refused, err := l.Write(change(l, frames)); err != nil && !errors.Is(err, unix.EAGAIN) {
					ends <- fmt.Errorf("%d refused: %w", refused, err)
					return
				}
			}
		})
	}
	return func() error {
		for _, l := range r.lanes {
			if err := l.Close(); err != nil {
				return err
			}
		}
		group.Wait()
		for range r.lanes {
			if err := <-ends; !errors.Is(err, ErrClosed) {
				return err
			}
		}
		return nil
	}
}

func unchanged(_ Lane, frames []Frame) []Frame { return frames }

// onEveryLane runs a test on every kind of lane. It fails where something is
// left open afterwards.
func onEveryLane(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("memory", func(t *testing.T) { test(t, memoryRig(t)) })
	onEveryTAP(t, test)
}

// onEveryTAP is onEveryLane for the kernel's devices.
func onEveryTAP(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, kind := range []struct {
		name  string
		lanes func(from, to *TAP) ([]Lane, error)
	}{{"plain", Plain}, {"ring", Ring}} {
		for _, c := range []TAPConfig{
			{MTU: 1500, Queues: 1},
			{MTU: 1500, Queues: 1, Offload: true},
			{MTU: 9000, Queues: 2},
			{MTU: 1500, Queues: 2, Offload: true},
		} {
			name := fmt.Sprintf("%s/mtu=%d/queues=%d/offload=%v", kind.name, c.MTU, c.Queues, c.Offload)
			t.Run(name, func(t *testing.T) {
				before := descriptors(t)
				t.Run("", func(t *testing.T) { test(t, tapRig(t, c, kind.lanes)) })
				if n := descriptors(t); n != before {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
		}
	}
}

func memoryRig(t *testing.T) *rig {
	from, to := NewMemory("in"), NewMemory("out")
	return &rig{
		lanes:   []Lane{from.Lane(to)},
		offload: true,
		send: func(f Frame) error {
			from.InjectFrame(f)
			return nil
		},
		receive: func() (Frame, error) { return next(t, to) },
		replies: func() (Frame, error) { return next(t, from) },
	}
}

func next(t *testing.T, m *Memory) (Frame, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return m.Next(ctx)
}

func tapRig(t *testing.T, c TAPConfig, lanes func(from, to *TAP) ([]Lane, error)) *rig {
	t.Helper()
	r := &rig{space: namespace(t), offload: c.Offload}
	do(t, r.space, func() (err error) {
		for name, tap := range map[string]**TAP{"fw-in": &r.from, "fw-out": &r.to} {
			c.Name = name
			if *tap, err = OpenTAP(c); err != nil {
				return err
			}
			t.Cleanup(func() {
				if err := (*tap).Close(); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	var err error
	if r.lanes, err = lanes(r.from, r.to); err != nil {
		if strings.Contains(err.Error(), "io_uring") && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range r.lanes {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	near, far := openSocket(t, r.space, "fw-in"), openSocket(t, r.space, "fw-out")
	r.send, r.receive, r.replies = near.send, far.receive, near.receive
	return r
}

// socket is a packet socket with virtio-net headers on a device (packet(7),
// PACKET_VNET_HDR), which sees what comes in by it.
type socket struct {
	file *os.File
}

func openSocket(t testing.TB, n *lab.Namespace, device string) *socket {
	t.Helper()
	s := &socket{}
	do(t, n, func() error {
		ifindex, err := index(device)
		if err != nil {
			return err
		}
		const protocol = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.file = os.NewFile(uintptr(fd), "packet socket on "+device)
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifindex}),
		)
	})
	t.Cleanup(func() { _ = s.file.Close() })
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

func (s *socket) send(f Frame) error {
	b := make([]byte, headerSize, headerSize+len(f.Data))
	f.Offload.encode(b)
	_, err := s.file.Write(append(b, f.Data...))
	return err
}

func (s *socket) receive() (Frame, error) {
	b := make([]byte, 1<<17)
	if err := s.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return Frame{}, err
	}
	n, err := s.file.Read(b)
	if errors.Is(err, unix.ENETDOWN) { // which it was; said once
		n, err = s.file.Read(b)
	}
	if err != nil || n < headerSize {
		return Frame{}, fmt.Errorf("received %d bytes: %w", n, err)
	}
	f := Frame{Data: b[headerSize:n]}
	f.Offload.decode(b)
	return f, nil
}

// The kernel's structures have their sizes.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(sqe{})-64]
	_ = [1]struct{}{}[unsafe.Sizeof(cqe{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(buffer{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(bufferRegistration{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(params{})-120]
	_ = [1]struct{}{}[unsafe.Sizeof(enterArgument{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(probe{})-16-8*50]
)
