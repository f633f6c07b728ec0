package tap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// The system call that writes a frame to a TAP also forwards it, through the NIC or the host's
// stack behind the TAP. With NAPI threads (the kernel's Documentation/networking/napi.rst) one
// kernel thread per queue does this work, and not the lane's thread.

// errNoThreads is wrapped if a TAP cannot have NAPI threads.
var errNoThreads = errors.New("no NAPI threads")

// sendBuffer is the maximum that a queue of a TAP with NAPI threads holds, in bytes as the
// kernel counts them: about 1,500 frames of 1,514 bytes.
const sendBuffer = 4 << 20

// startThreads gives a TAP its NAPI threads, and limits its queues.
func (t *TAP) startThreads(link netlink.Link) error {
	f, err := openThreaded(link.Attrs())
	if err != nil {
		return fmt.Errorf("%w: %w", errNoThreads, err)
	}
	_, err = f.WriteString("1")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: %w", errNoThreads, err)
	}
	// The threads would merge segments, and the kernel then does not return all of the send
	// buffer (net/core/gro.c, skb_gro_receive).
	if err := netdev.DisableGRO(t.config.Name); err != nil {
		return fmt.Errorf("turn receive offload off: %w", err)
	}
	// The limit applies to all queues.
	if err := unix.IoctlSetPointerInt(t.queues[0], unix.TUNSETSNDBUF, sendBuffer); err != nil {
		return fmt.Errorf("set send buffer: %w", err)
	}
	return nil
}

// openThreaded opens the attribute of a device that turns NAPI threads on: in /sys, if that
// shows this network namespace and is writable, or in a sysfs that is not mounted anywhere.
func openThreaded(device *netlink.LinkAttrs) (*os.File, error) {
	folder := "class/net/" + device.Name + "/"
	index, err := os.ReadFile("/sys/" + folder + "ifindex")
	if err == nil && strings.TrimSpace(string(index)) == strconv.Itoa(device.Index) {
		f, err := os.OpenFile("/sys/"+folder+"threaded", os.O_WRONLY, 0)
		if !errors.Is(err, unix.EROFS) {
			return f, err
		}
	}
	root, err := mountSysfs()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, folder+"threaded", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %sthreaded: %w", folder, err)
	}
	return os.NewFile(uintptr(fd), device.Name+" threaded"), nil
}

// mountSysfs returns the root of a sysfs that shows this network namespace.
func mountSysfs() (root int, err error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("open sysfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, fmt.Errorf("create sysfs: %w", err)
	}
	if root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return 0, fmt.Errorf("mount sysfs: %w", err)
	}
	return root, nil
}
