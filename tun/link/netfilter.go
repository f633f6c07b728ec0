package link

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"

	"fragwall/tun/netdev"
)

// setSysctl sets a kernel parameter until Close.
func (j *Junction) setSysctl(name, value string) error {
	old, err := netdev.SwapSysctl(name, value)
	if err == nil && old != "" {
		j.later(step{Kind: stepSysctl, Name: name, Value: old})
	}
	return err
}

// netfilter is a set of the families in netfilterFamilies, by bit.
type netfilter uint8

// netfilterFamilies are those of the sysctls net.bridge.bridge-nf-call-*.
var netfilterFamilies = [...]string{"iptables", "ip6tables", "arptables"}

const allNetfilter netfilter = 1<<len(netfilterFamilies) - 1

// sysctls returns the names of the sysctls.
func (n netfilter) sysctls() (names []string) {
	for i, family := range netfilterFamilies {
		if n&(1<<i) != 0 {
			names = append(names, "net/bridge/bridge-nf-call-"+family)
		}
	}
	return names
}

// restore sets the sysctls to 1.
func (n netfilter) restore() error {
	var errs []error
	for _, name := range n.sysctls() {
		_, err := netdev.SwapSysctl(name, "1")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// bypassNetfilter stops the br_netfilter module from passing bridged frames to the IP layer's
// netfilter, where connection tracking would reassemble fragments before they reach the TAP. It
// returns the sysctls that it set to 0. They apply to the whole namespace. If it has other bridges,
// bypassNetfilter returns an error instead, because their rules might depend on the sysctls.
func (j *Junction) bypassNetfilter() (cleared netfilter, err error) {
	for i, name := range allNetfilter.sysctls() {
		value, err := netdev.Sysctl(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && value == "0" {
			continue
		}
		if err != nil {
			return cleared, err
		}
		other, err := foreignBridge()
		if err != nil {
			return cleared, err
		}
		if other != "" {
			return cleared, fmt.Errorf("sysctl %s is 1, which sends bridged frames through netfilter; fragwall leaves it on, because bridge %q may need it: set it to 0, or run fragwall in its own network namespace",
				strings.ReplaceAll(name, "/", "."), other)
		}
		if err := j.setSysctl(name, "0"); err != nil {
			return cleared, err
		}
		cleared |= 1 << i
	}
	return cleared, nil
}

// foreignBridge returns the name of a bridge that fragwall did not make, or "".
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
