package netdev

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Large receive offload has a NIC merge segments so that they can't be taken
// apart again as they were. A bridge turns it off on its ports for that
// (net/core/dev.c, dev_disable_lro); a redirect has to ask for it
// (include/uapi/linux/ethtool.h).
const lroFlag = 1 << 15 // ETH_FLAG_LRO

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolRequest is struct ifreq with a pointer.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// ethtool gets or sets a NIC's flags. A driver that has none is no error.
func ethtool(name string, v *ethtoolValue) error { return askDriver(name, unsafe.Pointer(v)) }

// askDriver has a driver do what a request says, which begins with its command. A
// driver that can't is no error.
func askDriver(name string, v unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("ethtool: %w", err)
	}
	defer unix.Close(fd)
	r := ethtoolRequest{data: v}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	if errno != 0 && errno != unix.EOPNOTSUPP {
		return fmt.Errorf("ethtool: %w", errno)
	}
	return nil
}

// DisableGRO keeps the kernel from merging what comes in by a device (generic receive
// offload).
func DisableGRO(name string) error { return ethtool(name, &ethtoolValue{cmd: unix.ETHTOOL_SGRO}) }

// LRO reports whether a NIC's large receive offload is on.
func LRO(name string) (bool, error) {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	err := ethtool(name, &v)
	return v.data&lroFlag != 0, err
}

// SetLRO turns a NIC's large receive offload on or off.
func SetLRO(name string, on bool) error {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	if err := ethtool(name, &v); err != nil || v.data&lroFlag != 0 == on {
		return err
	}
	v.cmd, v.data = unix.ETHTOOL_SFLAGS, v.data^lroFlag
	return ethtool(name, &v)
}

// ethtoolCommand is struct ethtool_cmd as far as its speed, in Mbit/s, goes.
type ethtoolCommand struct {
	cmd       uint32
	_         [2]uint32
	speed     uint16
	_         [6]uint8
	_         [2]uint32
	speedHigh uint16
	_         [14]uint8
}

// ethtoolGetSettings is ETHTOOL_GSET.
const ethtoolGetSettings = 1

// linkSpeed returns a NIC's speed in bit/s; 0 where its driver does not say.
func linkSpeed(name string) uint64 {
	c := ethtoolCommand{cmd: ethtoolGetSettings}
	if askDriver(name, unsafe.Pointer(&c)) != nil {
		return 0
	}
	speed := uint32(c.speedHigh)<<16 | uint32(c.speed)
	if speed == 1<<32-1 || c.speedHigh == 0 && speed == 1<<16-1 { // SPEED_UNKNOWN
		return 0
	}
	return uint64(speed) * 1e6
}
