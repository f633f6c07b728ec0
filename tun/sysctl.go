package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// sysctlRoot is where the kernel shows the settings of the network namespace
// of the thread that opens a file there.
const sysctlRoot = "/proc/sys"

// setSysctl sets a kernel parameter until Close. One that the kernel does not
// have, as where IPv6 is not built in, needs no setting.
func (j *Junction) setSysctl(name, value string) error {
	path := filepath.Join(sysctlRoot, name)
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	if strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl to %s: %w", value, err)
	}
	j.undo.push(func() error { return os.WriteFile(path, old, 0) })
	return nil
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
		if l.Type() == "bridge" && l.Attrs().Alias != bridgeAlias {
			return l.Attrs().Name, nil
		}
	}
	return "", nil
}
