package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrExists is wrapped where a device of the name is there already.
var ErrExists = errors.New("device exists")

// TAPConfig says what a TAP device is to be.
type TAPConfig struct {
	Name string
	MTU  int // bytes
	// Queues is at least 1. All packets and fragments between two addresses go
	// by the same queue; a device that can't have it so gets one.
	Queues  int
	Offload bool // frames carry virtio-net headers
}

// TAP is a TAP device of the kernel's (tun_tap in the kernel's
// Documentation/networking), which lives until [TAP.Close]. Frames go by its
// lanes: [Ring] or [Plain].
type TAP struct {
	TAPConfig
	index      int   // of the kernel's
	queues     []int // descriptors, not blocking
	threaded   bool  // it has NAPI threads
	unthreaded error // why it has none, where it was to have them
	unsteered  error // why it has one queue, where it was to have more
}

// queueLength is how many frames each queue of a TAP holds while nobody reads:
// 20 ms of a flood of 200,000 a second, so that no frame is lost because the
// scheduler or the collector had something else to do, and not more, because a
// queue that never empties is latency. It is the only one there is.
const queueLength = 4096

// OpenTAP makes a TAP device and brings it up. Its error wraps [ErrExists]
// where a device of that name is there already, and says what is missing where
// the process lacks a right or the kernel a driver.
func OpenTAP(c TAPConfig) (*TAP, error) {
	if err := Vacant(c.Name); err != nil {
		return nil, err
	}
	t := &TAP{TAPConfig: c, threaded: c.Offload}
	err := t.open()
	for t.doWithout(err) {
		if err = t.Close(); err == nil {
			err = t.open()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tap %q: %w", c.Name, explain(err)), t.Close())
	}
	return t, nil
}

// releaseTime is how long the kernel may take to close what a killed process
// had open: an io_uring goes in the background, and the TAP with it.
const releaseTime = 2 * time.Second

// Vacant returns the error that wraps [ErrExists] where [OpenTAP] would find a
// device of a name. It waits for a TAP that goes with the process that made it,
// as one that was killed just now.
func Vacant(name string) error {
	for deadline := time.Now().Add(releaseTime); ; time.Sleep(10 * time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil
		}
		tap, ok := link.(*netlink.Tuntap)
		switch {
		case !ok || !tap.NonPersist:
			return fmt.Errorf("open tap %q: %w and is not fragwall's: remove it or choose another name", name, ErrExists)
		case time.Now().After(deadline):
			return fmt.Errorf("open tap %q: %w and is a process's, as another fragwall's: end that or choose another name", name, ErrExists)
		}
	}
}

// doWithout reports whether the device can be had without what an error says is
// missing, and notes that.
func (t *TAP) doWithout(err error) bool {
	switch {
	case errors.Is(err, errNoSteering):
		t.Queues, t.unsteered = 1, err
	case errors.Is(err, errNoThreads):
		t.threaded, t.unthreaded = false, err
	default:
		return false
	}
	return true
}

// WithoutThreads says why the kernel has no threads of its own for what is
// written to a TAP with offload, which the lane's then does; nil where it has.
func (t *TAP) WithoutThreads() error { return t.unthreaded }

// WithoutQueues says why a TAP has one queue and not as many as it was to have;
// nil where it has them.
func (t *TAP) WithoutQueues() error { return t.unsteered }

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
	if t.Queues > 1 {
		if err := t.steer(); err != nil {
			return err
		}
	}
	if t.Offload {
		if err := setOffload(t.queues[0]); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(t.Name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	if err := netlink.LinkSetMTU(link, t.MTU); err != nil {
		return fmt.Errorf("set mtu %d: %w", t.MTU, err)
	}
	if err := netlink.LinkSetTxQLen(link, queueLength); err != nil {
		return fmt.Errorf("set queue length %d: %w", queueLength, err)
	}
	if err := silence(link); err != nil {
		return err
	}
	if t.threaded {
		if err := t.startThreads(link); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// openQueues makes the device and opens its queues: by water, or where virtio-net
// headers are asked for, which water knows nothing of, by netlink. On an error it may
// return files too.
func (t *TAP) openQueues() (files []*os.File, err error) {
	if t.Offload {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = t.Name
		link := &netlink.Tuntap{
			LinkAttrs:  attributes,
			Mode:       netlink.TUNTAP_MODE_TAP,
			Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
			NonPersist: true,
			Queues:     t.Queues,
			Owner:      uint32(os.Getuid()),
			Group:      uint32(os.Getgid()),
		}
		if t.Queues > 1 {
			link.Flags |= netlink.TUNTAP_MULTI_QUEUE
		}
		if t.threaded {
			link.Flags |= unix.IFF_NAPI
		}
		err := netlink.LinkAdd(link)
		return link.Fds, err
	}
	for range t.Queues {
		device, err := water.New(water.Config{
			DeviceType:             water.TAP,
			PlatformSpecificParams: water.PlatformSpecificParams{Name: t.Name, MultiQueue: t.Queues > 1},
		})
		if err != nil {
			return files, err
		}
		files = append(files, device.ReadWriteCloser.(*os.File))
	}
	return files, nil
}

// detach takes a descriptor out of its file. The runtime's poller, which would
// wake a thread for each frame that comes, lets go of it.
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

// setOffload lets the kernel hand over frames that still need a checksum or
// segmentation. UDP segmentation needs Linux 6.2.
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

// explain adds what an operator can do to the errors of opening a TAP.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("/dev/net/tun: %w: load the kernel's tun module, or pass the device into the container", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("/dev/net/tun: %w: give this user the right to open it", err)
	case errors.Is(err, unix.EPERM), strings.Contains(err.Error(), unix.EPERM.Error()): // netlink wraps nothing
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing; run as root or grant it", err)
	}
	return err
}

// Missed returns how many frames the kernel dropped before a lane could read
// them: their queue was full.
func (t *TAP) Missed() (frames uint64, err error) {
	link, err := netlink.LinkByIndex(t.index)
	if err != nil {
		return 0, fmt.Errorf("read statistics of tap %q: %w", t.Name, err)
	}
	return link.Attrs().Statistics.TxDropped, nil
}

// Close removes the device. Lanes that are still open keep it alive, so close
// them first. Closing again does nothing.
func (t *TAP) Close() error {
	var errs []error
	for _, fd := range t.queues {
		if err := unix.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close tap %q: %w", t.Name, err))
		}
	}
	t.queues = nil
	return errors.Join(errs...)
}

// failure says on which device an operation failed.
func failure(operation, device string, err error) error {
	if errors.Is(err, unix.EBADFD) {
		err = fmt.Errorf("the device was removed: %w", err)
	}
	return fmt.Errorf("%s tap %q: %w", operation, device, err)
}

// frameSize is how long a frame can be that a TAP delivers: the MTU or, with
// offload, the 65,535 bytes that the IP length fields can say, an Ethernet
// header and two VLAN tags.
func (t *TAP) frameSize() int {
	longest := t.MTU
	if t.Offload {
		longest = max(longest, 65535)
	}
	return longest + 14 + 2*4
}

// pairs returns for each queue of from the one of to by which its frames
// leave. Packets between two addresses come by one queue, and so leave by one,
// in order.
func pairs(from, to *TAP) ([][2]int, error) {
	if from.Offload != to.Offload {
		return nil, fmt.Errorf("join tap %q to tap %q: one has offload and the other has not", from.Name, to.Name)
	}
	var p [][2]int
	for i, fd := range from.queues {
		p = append(p, [2]int{fd, to.queues[i%len(to.queues)]})
	}
	return p, nil
}
