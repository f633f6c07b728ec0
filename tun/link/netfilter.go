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

// bypassNetfilter stops the br_netfilter module from passing bridged frames to the IP layer's
// netfilter, where connection tracking would reassemble fragments before they reach the TAP. The
// sysctls apply to the whole namespace. If it has other bridges, bypassNetfilter returns an error
// instead, because their rules might depend on the sysctls.
func (j *Junction) bypassNetfilter() error {
	for _, family := range []string{"iptables", "ip6tables", "arptables"} {
		name := "net/bridge/bridge-nf-call-" + family
		value, err := netdev.Sysctl(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && value == "0" {
			continue
		}
		if err != nil {
			return err
		}
		other, err := foreignBridge()
		if err != nil {
			return err
		}
		if other != "" {
			return fmt.Errorf("sysctl %s is 1, which sends bridged frames through netfilter; fragwall leaves it on, because bridge %q may need it: set it to 0, or run fragwall in its own network namespace",
				strings.ReplaceAll(name, "/", "."), other)
		}
		if err := j.setSysctl(name, "0"); err != nil {
			return err
		}
	}
	return nil
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
