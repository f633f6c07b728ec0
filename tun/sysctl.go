package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sysctlRoot is where the kernel shows the settings of the network namespace
// of the thread that opens a file there.
const sysctlRoot = "/proc/sys"

// ipv6Switch is the sysctl that turns a device's IPv6 off.
func ipv6Switch(device string) string { return "net/ipv6/conf/" + device + "/disable_ipv6" }

// swapSysctl sets a kernel parameter and returns what it was before, nil if
// that was the same. One that the kernel does not have, as where IPv6 is not
// built in, needs no setting.
func swapSysctl(name, value string) (old []byte, err error) {
	path := filepath.Join(sysctlRoot, name)
	old, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read sysctl: %w", err)
	}
	if strings.TrimSpace(string(old)) == value {
		return nil, nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return nil, fmt.Errorf("set sysctl to %s: %w", value, explainSysctl(name, value, err))
	}
	return old, nil
}

// explainSysctl adds to the error of setting a kernel parameter what an operator
// can do where /proc/sys is read-only, as in most containers.
func explainSysctl(name, value string, err error) error {
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	return fmt.Errorf("%w: set %s = %s where the network namespace is made, as by docker run --sysctl or the securityContext.sysctls of a pod",
		err, strings.ReplaceAll(name, "/", "."), value)
}

// strictReversePath has an interface take only packets that a route to their
// source leads back by (net.ipv4.conf.*.rp_filter = 1), by netlink, which works
// where sysctls can't be written.
func strictReversePath(link netlink.Link) error {
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

// silence keeps an interface that comes up from speaking IPv6, which it would
// do at once, into the wire. Where sysctls can't be written, as in most
// containers, it gets no address instead, without which it has nothing to say.
func silence(link netlink.Link) error {
	_, err := swapSysctl(ipv6Switch(link.Attrs().Name), "1")
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := netlink.LinkSetIP6AddrGenMode(link, none); err != nil {
		return fmt.Errorf("keep ipv6 quiet: %w", err)
	}
	return nil
}

// setSysctl sets a kernel parameter until Close.
func (j *Junction) setSysctl(name, value string) error {
	old, err := swapSysctl(name, value)
	if err == nil && old != nil {
		j.undo.push(func() error { return os.WriteFile(filepath.Join(sysctlRoot, name), old, 0) })
	}
	return err
}

// bypassNetfilter keeps bridged frames out of the IP layer's netfilter, which
// the br_netfilter module sends them to, and where connection tracking would
// put fragments together before they get here. The switch is the whole
// namespace's: where other bridges live there, it is theirs too, and turning it
// off would disarm their rules.
func (j *Junction) bypassNetfilter() error {
	for _, family := range []string{"iptables", "ip6tables", "arptables"} {
		name := "net/bridge/bridge-nf-call-" + family
		value, err := os.ReadFile(filepath.Join(sysctlRoot, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(value)) == "0" {
			continue
		}
		if err != nil {
			return fmt.Errorf("read sysctl: %w", err)
		}
		other, err := foreignBridge()
		if err != nil {
			return err
		}
		if other != "" {
			return fmt.Errorf("sysctl %s is 1 and sends bridged frames through netfilter; fragwall does not turn it off, because bridge %q may rely on it: set it to 0, or give fragwall a network namespace of its own",
				strings.ReplaceAll(name, "/", "."), other)
		}
		if err := j.setSysctl(name, "0"); err != nil {
			return err
		}
	}
	return nil
}

// foreignBridge returns the name of a bridge that is not fragwall's, if there
// is one.
func foreignBridge() (string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if _, ours := bridgeState(l); l.Type() == "bridge" && !ours {
			return l.Attrs().Name, nil
		}
	}
	return "", nil
}
