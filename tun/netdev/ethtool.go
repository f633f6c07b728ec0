package netdev

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// With large receive offload a NIC merges segments in a way that cannot be undone. A
// bridge turns it off on its ports (net/core/dev.c, dev_disable_lro); a redirect has to
// turn it off itself (include/uapi/linux/ethtool.h).
const lroFlag = 1 << 15 // ETH_FLAG_LRO

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolRequest is struct ifreq with a pointer.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// ethtool gets or sets a NIC's flags. It is not an error if the driver has none.
func ethtool(name string, v *ethtoolValue) error { return askDriver(name, unsafe.Pointer(v)) }

// askDriver passes a request, which begins with its command, to a driver. It is not an
// error if the driver does not support it.
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

// DisableGRO turns off generic receive offload on a device.
func DisableGRO(name string) error { return ethtool(name, &ethtoolValue{cmd: unix.ETHTOOL_SGRO}) }

// LRO reports whether large receive offload is on.
func LRO(name string) (bool, error) {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	err := ethtool(name, &v)
	return v.data&lroFlag != 0, err
}

// SetLRO turns large receive offload on or off.
func SetLRO(name string, on bool) error {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	if err := ethtool(name, &v); err != nil || v.data&lroFlag != 0 == on {
		return err
	}
	v.cmd, v.data = unix.ETHTOOL_SFLAGS, v.data^lroFlag
	return ethtool(name, &v)
}

// ethtoolCommand is struct ethtool_cmd, up to the speed in Mbit/s.
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

// linkSpeed returns a NIC's speed in bit/s, or 0 if its driver does not report it.
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
