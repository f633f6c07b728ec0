package tap

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/netdev"
)

// TAP is a TAP device (tun_tap in the kernel's Documentation/networking). It exists until
// [TAP.Close].
type TAP struct {
	config    tun.Config
	index     int             // the kernel's interface index
	queues    []int           // descriptors, nonblocking
	threaded  bool            // it has NAPI threads
	shared    *sheddingMemory // shared with its filter; nil without one
	rings     *rings          // of its queues; nil without any
	takesUDP  bool            // the kernel fragments a UDP datagram that is written in one piece; see [takesDatagrams]
	cuts      atomic.Bool
	fallbacks []tun.Fallback
}

var _ tun.Port = (*TAP)(nil)

// queueLength is the maximum number of frames in each queue of a TAP while the lane does not read,
// including those in its ring and those that the lane has read and not yet reported. It is 25 ms
// of a flood of 200,000 frames per second. That is enough to lose no frame while the scheduler or
// the garbage collector delays the lane. A longer queue would add latency under a flood.
const queueLength = int(programShedConstantsQUEUE_LENGTH)

// Open makes a TAP device and brings it up. Its error wraps [netdev.ErrExists] if there is a
// device with that name, and says what is missing if the process lacks a right or the kernel
// lacks a driver.
func Open(c tun.Config) (*TAP, error) {
	if err := netdev.Vacant(c.Name); err != nil {
		return nil, err
	}
	t := &TAP{config: c, threaded: c.Offload}
	t.config.Queues = c.QueueCount()
	err := t.open()
	for t.doWithout(err, c.Queues) {
		if err = t.Close(); err == nil {
			err = t.open()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tap %q: %w", c.Name, explain(err)), t.Close())
	}
	return t, nil
}

// doWithout reports whether the device works without the feature that an error says is missing,
// and records the fallback. queues is the configured number of queues.
func (t *TAP) doWithout(err error, queues int) bool {
	missing := tun.Fallback{Level: slog.LevelInfo, Err: err}
	switch {
	case errors.Is(err, errNoSteering):
		missing.Message = "each tap has one queue: with several, packets and fragments of a flow would be reordered"
		if queues > 1 {
			missing.Level = slog.LevelWarn
		}
		t.config.Queues = 1
	case errors.Is(err, errNoThreads):
		missing.Message = "the taps have no NAPI threads: the lanes do their work"
		t.threaded = false
	default:
		return false
	}
	t.fallbacks = append(t.fallbacks, missing)
	return true
}

func (t *TAP) open() error {
	files, err := t.openQueues()
	for _, f := range files {
		fd, detachErr := detach(f)
		if detachErr != nil {
			err = errors.Join(err, detachErr)
			continue
		}
		t.queues = append(t.queues, fd)
	}
	if err != nil {
		return err
	}
	if err := t.reserve(); err != nil {
		return err
	}
	if t.config.Queues > 1 {
		if err := t.steer(); err != nil {
			return err
		}
	}
	t.filter()
	if t.config.Offload {
		if err := setOffload(t.queues[0]); err != nil {
			return err
		}
		t.takesUDP = takesDatagrams(t.queues[0])
	}
	link, err := netlink.LinkByName(t.config.Name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	if err := netlink.LinkSetMTU(link, t.config.MTU); err != nil {
		return fmt.Errorf("set mtu %d: %w", t.config.MTU, err)
	}
	if err := netlink.LinkSetTxQLen(link, queueLength); err != nil {
		return fmt.Errorf("set queue length %d: %w", queueLength, err)
	}
	if err := netdev.DisableIPv6(link); err != nil {
		return err
	}
	if t.rings != nil {
		if err := immediate(link); err != nil {
			return err
		}
	}
	if t.threaded {
		if err := t.startThreads(link); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// openQueues makes the device and opens its queues: with water, or with netlink if virtio-net
// headers are configured, which water does not support. On an error it may return files, too.
func (t *TAP) openQueues() (files []*os.File, err error) {
	user, group := ownID()
	if t.config.Offload {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = t.config.Name
		link := &netlink.Tuntap{
			LinkAttrs:  attributes,
			Mode:       netlink.TUNTAP_MODE_TAP,
			Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
			NonPersist: true,
			Queues:     t.config.Queues,
			Owner:      user,
			Group:      group,
		}
		if t.config.Queues > 1 {
			link.Flags |= netlink.TUNTAP_MULTI_QUEUE
		}
		if t.threaded {
			link.Flags |= unix.IFF_NAPI
		}
		err := netlink.LinkAdd(link)
		return link.Fds, err
	}
	for range t.config.Queues {
		device, err := water.New(water.Config{
			DeviceType: water.TAP,
			PlatformSpecificParams: water.PlatformSpecificParams{
				Name: t.config.Name, MultiQueue: t.config.Queues > 1,
				Permissions: &water.DevicePermissions{Owner: uint(user), Group: uint(group)},
			},
		})
		if err != nil {
			return files, err
		}
		files = append(files, device.ReadWriteCloser.(*os.File))
	}
	return files, nil
}

// detach takes a descriptor from its file, so that the runtime's poller, which would wake a
// thread for each frame, no longer watches it.
func detach(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	})
	return fd, errors.Join(controlErr, err, f.Close())
}

// setOffload lets the kernel deliver frames that still need a checksum or segmentation. UDP
// segmentation needs Linux 6.2.
func setOffload(fd int) error {
	const basic = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, basic|unix.TUN_F_USO4|unix.TUN_F_USO6)
	if err == unix.EINVAL {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, basic)
	}
	if err != nil {
		return fmt.Errorf("set offload: %w", err)
	}
	return nil
}

// takesDatagrams reports whether the kernel fragments a UDP datagram that is written in one
// piece, as it does since 4.14.8 without being asked. It writes one to a TAP that is down,
// which refuses it only for that reason (drivers/net/tun.c, tun_get_user).
func takesDatagrams(fd int) bool {
	probe := make([]byte, tun.HeaderSize+ethernetHeader+20+8+16)
	o := tun.Offload{GSO: tun.GSOFragments, HeaderLength: ethernetHeader + 20 + 8, SegmentSize: 8}
	o.Encode(probe)
	copy(probe[tun.HeaderSize+12:], "\x08\x00\x45")
	_, err := unix.Write(fd, probe)
	return err == unix.EIO
}

// explain adds what an operator can do to the errors of opening a TAP.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("/dev/net/tun: %w: load the kernel's tun module, or pass the device into the container", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("/dev/net/tun: %w: give this user the right to open it", err)
	case errors.Is(err, unix.EPERM), strings.Contains(err.Error(), unix.EPERM.Error()): // netlink does not wrap the error
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing; run as root or grant it", err)
	}
	return err
}

// Name returns the name of the device.
func (t *TAP) Name() string { return t.config.Name }

// Index returns the interface index of the device.
func (t *TAP) Index() int { return t.index }

// Fallbacks reports that the kernel has no NAPI threads for what is written to a TAP with
// offload, or that the TAP has one queue instead of the configured number.
func (t *TAP) Fallbacks() []tun.Fallback { return t.fallbacks }

// Missed returns the number of frames that the kernel dropped before a lane could read them,
// because their queue was full. Frames that were shed are not included.
func (t *TAP) Missed() (frames uint64, err error) {
	shed := uint64(0)
	for i := range t.queues {
		q := t.queue(i)
		shed += q.filtered()
	}
	link, err := netlink.LinkByIndex(t.index)
	if err != nil {
		return 0, fmt.Errorf("read statistics of tap %q: %w", t.config.Name, err)
	}
	dropped := link.Attrs().Statistics.TxDropped
	return dropped - min(shed, dropped), nil
}

// Close removes the device, unless another process has it, too. Lanes that are still open keep
// it alive, so close them first. Closing again does nothing.
func (t *TAP) Close() error {
	var errs []error
	for _, fd := range t.queues {
		if err := unix.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close tap %q: %w", t.config.Name, err))
		}
	}
	errs = append(errs, t.shared.close(), t.rings.close())
	t.queues, t.shared, t.rings = nil, nil, nil
	return errors.Join(errs...)
}

// SetMTU changes the MTU, in bytes. Without offload the lanes have room only for frames of the
// MTU that the TAP was opened with.
func (t *TAP) SetMTU(mtu int) error {
	if mtu > t.config.MTU && !t.config.Offload {
		return fmt.Errorf("tap %q: set mtu %d: without offload its mtu cannot exceed %d, as at the start: restart", t.config.Name, mtu, t.config.MTU)
	}
	if err := netdev.SetMTU(t.index, mtu); err != nil {
		return fmt.Errorf("tap %q: set mtu %d: %w", t.config.Name, mtu, err)
	}
	return nil
}

// SetJoined makes lanes write a datagram's fragments as one frame if the TAP is joined to a
// NIC, has offload, and the kernel accepts such frames.
func (t *TAP) SetJoined(on bool) { t.cuts.Store(on && t.takesUDP) }

// SetCarrier turns the carrier of the TAP on or off (Linux 5.0).
func (t *TAP) SetCarrier(on bool) error {
	value := 0
	if on {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETCARRIER, value); err != nil {
		return fmt.Errorf("tap %q: set carrier: %w", t.config.Name, err)
	}
	return nil
}
