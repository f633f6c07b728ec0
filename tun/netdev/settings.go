package netdev

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// DisableIPv6 prevents an interface from using IPv6 when it comes up. If sysctls cannot
// be written, as in most containers, the interface gets no IPv6 address instead.
func DisableIPv6(link netlink.Link) error {
	_, err := SwapSysctl(IPv6Switch(link.Attrs().Name), "1")
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	return DisableIPv6Addresses(link)
}

// DisableIPv6ByIndex is [DisableIPv6] by the index of a device.
func DisableIPv6ByIndex(index int) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("interface of index %d: %w", index, err)
	}
	return DisableIPv6(link)
}

// DisableIPv6Addresses stops the kernel from generating IPv6 addresses for a device
// (IN6_ADDR_GEN_MODE_NONE). A device whose MTU is too small for IPv6 has none anyway.
func DisableIPv6Addresses(link netlink.Link) error {
	const none = 1
	_, err := Sysctl(IPv6Switch(link.Attrs().Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := netlink.LinkSetIP6AddrGenMode(link, none); err != nil {
		return fmt.Errorf("turn off automatic ipv6 addresses: %w", err)
	}
	return nil
}

// StrictReversePath makes an interface accept only packets whose source is routed back
// through it (net.ipv4.conf.*.rp_filter = 1). It uses netlink, which also works if
// sysctls cannot be written.
func StrictReversePath(link netlink.Link) error {
	const (
		inetConf  = 1 // IFLA_INET_CONF
		rpFilter  = 8 // IPV4_DEVCONF_RP_FILTER
		strictest = 1
	)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(link.Attrs().Index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	families.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).AddRtAttr(inetConf|unix.NLA_F_NESTED, nil).AddRtAttr(rpFilter, nl.Uint32Attr(strictest))
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	r.AddData(header)
	r.AddData(families)
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set rp_filter to %d: %w", strictest, err)
	}
	return nil
}
