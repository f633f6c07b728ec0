package box

import (
	"context"
	"log/slog"
	"syscall"

	"fragwall/fastpath"
	"fragwall/tun"
	"fragwall/tun/device"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
)

// Kernel is the set of kernel operations on devices that a box uses. They apply to the network
// namespace of the calling thread.
type Kernel struct {
	OpenPort func(tun.Config) (tun.Port, error)
	// ImportPort and ImportJunction take over what another process has exported. They own the
	// descriptors.
	ImportPort     func(tun.Config, tun.Exported) (tun.Port, error)
	ImportJunction func(link.Exported) (Junction, error)
	Vacant         func(name string) error // waits until the kernel has removed the port of a killed fragwall
	NICMTU         func(name string) (int, error)
	Join           func(link.Config) (j Junction, nic int, err error) // nic is the interface index
	Bypass         func(a, b link.NIC) error
	ReadLink       func(index int) (netdev.Link, error)
	FindLink       func(name string) (netdev.Link, error)
	SetLink        func(index int, up bool) error
	// OpenFastPath loads the programs of the fast path without attaching them.
	OpenFastPath func(fastpath.Options) (FastPath, error)
	// DisableIPv6 disables IPv6 of the host on a device.
	DisableIPv6 func(index int) error
	// Follow calls take with messages about links and classifiers until ctx is done, as
	// [netdev.Follow] does.
	Follow func(ctx context.Context, log *slog.Logger, take func([]syscall.NetlinkMessage), groups ...uint)
}

// Junction is a NIC that is joined to a port; see [link.Junction].
type Junction interface {
	Devices() []int // interface indices of the devices between the two
	Intact() (bool, error)
	SetMTU(mtu int) error
	Detach() error
	Redirected() bool
	Repair() error
	Export() link.Exported
	Close() error
}

var _ Junction = (*link.Junction)(nil)

// Linux is the running kernel.
var Linux = Kernel{
	OpenPort:   device.Open,
	ImportPort: device.Import,
	ImportJunction: func(e link.Exported) (Junction, error) {
		j, err := link.Import(e)
		if err != nil {
			return nil, err
		}
		return j, nil
	},
	Vacant: netdev.Vacant,
	NICMTU: link.NICMTU,
	Join: func(c link.Config) (Junction, int, error) {
		j, err := link.Join(c)
		if err != nil {
			return nil, 0, err
		}
		return j, j.NIC, nil
	},
	OpenFastPath: func(o fastpath.Options) (FastPath, error) {
		f, err := fastpath.Open(o)
		if err != nil {
			return nil, err // a nil pointer in an interface is not nil
		}
		return f, nil
	},
	Bypass:      link.Bypass,
	ReadLink:    netdev.ReadLink,
	FindLink:    netdev.FindLink,
	SetLink:     netdev.SetLink,
	DisableIPv6: netdev.DisableIPv6ByIndex,
	Follow:      netdev.Follow,
}
