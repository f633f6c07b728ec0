package handover

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace identifies a network namespace, also after a reboot.
type Namespace struct {
	Boot string // /proc/sys/kernel/random/boot_id
	ID   uint64
}

// CurrentNamespace returns the namespace of the calling thread. The kernel numbers them
// (SO_NETNS_COOKIE, Linux 5.14). Older kernels have only the number of its file, which
// may be reused.
func CurrentNamespace() (Namespace, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Namespace{}, fmt.Errorf("read boot id: %w", err)
	}
	n := Namespace{Boot: strings.TrimSpace(string(boot))}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Namespace{}, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	n.ID, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		var info os.FileInfo
		if info, err = os.Stat("/proc/thread-self/ns/net"); err == nil {
			n.ID = info.Sys().(*syscall.Stat_t).Ino
		}
	}
	if err != nil {
		return Namespace{}, fmt.Errorf("identify network namespace: %w", err)
	}
	return n, nil
}
