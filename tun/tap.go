package tun

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrExists is wrapped where a device of the name is there already.
var ErrExists = errors.New("device exists")

// TAP is a port on a TAP device of the kernel's (tun_tap in the kernel's
// Documentation/networking). The device lives until [TAP.Close].
type TAP struct {
	name   string
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool // the raw connection's error does not tell

	// Of the goroutine that reads:
	buffers [batch][]byte
	frames  []Frame
	readErr error
	drain   func(fd uintptr) bool // t.drainFrom, bound once

	// Of the goroutine that writes:
	pending  []Frame
	refused  int
	writeErr error
	fill     func(fd uintptr) bool // t.fillInto, bound once
}

// frameSize is as much as a TAP delivers at once: the largest MTU that the
// kernel gives it, an Ethernet header and two VLAN tags. A read into less
// would cut the frame off without a word.
const frameSize = math.MaxUint16 + 14 + 2*4

// OpenTAP makes a TAP device with an MTU in bytes and brings it up. Its error
// wraps [ErrExists] where a device of that name is there already, and says
// what is missing where the process lacks a right or the kernel a driver.
func OpenTAP(name string, mtu int) (*TAP, error) {
	if _, err := netlink.LinkByName(name); err == nil {
		return nil, fmt.Errorf("open tap %q: %w and is not fragwall's: remove it or choose another name", name, ErrExists)
	}
	device, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name},
	})
	if err != nil {
		return nil, fmt.Errorf("open tap %q: %w", name, explain(err))
	}
	t := &TAP{name: name, file: device.ReadWriteCloser.(*os.File)}
	if err := t.start(mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("open tap %q: %w", name, explain(err)), t.Close())
	}
	return t, nil
}

// start sets the device up.
func (t *TAP) start(mtu int) error {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	t.raw, t.drain, t.fill = raw, t.drainFrom, t.fillInto
	for i := range t.buffers {
		t.buffers[i] = make([]byte, frameSize)
	}
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set mtu %d: %w", mtu, err)
	}
	// An interface that comes up speaks IPv6 at once, into the wire.
	if _, err := swapSysctl(ipv6Switch(t.name), "1"); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// explain adds what an operator can do to the errors of opening a TAP.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("/dev/net/tun: %w: load the kernel's tun module, or pass the device into the container", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("/dev/net/tun: %w: give this user the right to open it", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing; run as root or grant it", err)
	}
	return err
}

// Name implements [Port].
func (t *TAP) Name() string { return t.name }

// Read implements [Port].
func (t *TAP) Read() ([]Frame, error) {
	t.frames, t.readErr = t.frames[:0], nil
	err := t.raw.Read(t.drain)
	if len(t.frames) > 0 {
		return t.frames, nil
	}
	if t.readErr != nil {
		err = t.readErr
	}
	return nil, t.failure("read", err)
}

// drainFrom reads what is there. It reports false, to be called again when
// there is more, if that is nothing.
func (t *TAP) drainFrom(fd uintptr) bool {
	for len(t.frames) < batch {
		buffer := t.buffers[len(t.frames)]
		n, err := unix.Read(int(fd), buffer)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return len(t.frames) > 0
		case err != nil:
			t.readErr = err
			return true
		default:
			t.frames = append(t.frames, Frame{Data: buffer[:n]})
		}
	}
	return true
}

// Write implements [Port].
func (t *TAP) Write(frames []Frame) (refused int, err error) {
	t.pending, t.refused, t.writeErr = frames, 0, nil
	err = t.raw.Write(t.fill)
	refused, t.refused = t.refused+len(t.pending), 0
	t.pending = nil
	if t.writeErr != nil {
		err = t.writeErr
	}
	if err != nil {
		return refused, t.failure("write", err)
	}
	return refused, nil
}

// fillInto writes what is pending. It reports false, to be called again when
// there is room, if the device has none.
func (t *TAP) fillInto(fd uintptr) bool {
	for len(t.pending) > 0 {
		_, err := unix.Write(int(fd), t.pending[0].Data)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err != nil:
			t.refused++
			if t.writeErr == nil {
				t.writeErr = err
			}
		}
		t.pending = t.pending[1:]
	}
	return true
}

// Send implements [Port]. The kernel takes each write as one frame, whoever
// else writes.
func (t *TAP) Send(f Frame) error {
	var failed error
	err := t.raw.Control(func(fd uintptr) { _, failed = unix.Write(int(fd), f.Data) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return t.failure("send to", err)
	}
	return nil
}

// failure names the device that an operation failed on.
func (t *TAP) failure(operation string, err error) error {
	switch {
	case t.closed.Load():
		err = ErrClosed
	case errors.Is(err, unix.EBADFD):
		err = fmt.Errorf("the device was removed: %w", err)
	}
	return fmt.Errorf("%s tap %q: %w", operation, t.name, err)
}

// Close implements [Port]. The kernel removes the device.
func (t *TAP) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	if err := t.file.Close(); err != nil {
		return fmt.Errorf("close tap %q: %w", t.name, err)
	}
	return nil
}
