package middle

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"fragwall/tun/lab"
)

// Bridge is a kernel bridge in the middle namespace.
type Bridge struct {
	network *lab.Network
}

// NewBridge connects the middle's interfaces by a bridge. rules is an nftables ruleset. If it is not
// empty, bridged packets pass the netfilter hooks of the IP layer (br_netfilter), where connection
// tracking reassembles fragments before the rules.
func NewBridge(n *lab.Network, rules string) (*Bridge, error) {
	b := &Bridge{network: n}
	return b, n.Middle.Do(func() error { return bridge(rules) })
}

// bridge sets up the bridge in the namespace of the calling thread.
func bridge(rules string) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "br"
	snooping := false
	br := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	for _, nic := range []string{lab.InsideNIC, lab.OutsideNIC} {
		link, err := netlink.LinkByName(nic)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(link, br); err != nil {
			return fmt.Errorf("join %q to the bridge: %w", nic, err)
		}
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return err
	}
	filtered := rules != ""
	call := map[bool]string{true: "1", false: "0"}[filtered]
	err := lab.Sysctl(map[string]string{
		"net/bridge/bridge-nf-call-iptables":  call,
		"net/bridge/bridge-nf-call-ip6tables": call,
	})
	switch {
	case errors.Is(err, os.ErrNotExist) && !filtered:
		return nil
	case err != nil || !filtered:
		return err
	}
	return load(rules)
}

// load loads nftables rules into the namespace of the calling thread.
func load(rules string) error {
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(rules)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// Memory returns the memory for fragments in the namespace in bytes (/proc/net/sockstat and
// sockstat6).
func (b *Bridge) Memory() (bytes int64) {
	_ = b.network.Middle.Do(func() error {
		for _, name := range []string{"sockstat", "sockstat6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) == 5 && strings.HasPrefix(f[0], "FRAG") {
					n, _ := strconv.ParseInt(f[4], 10, 64)
					bytes += n
				}
			}
		}
		return nil
	})
	return bytes
}

// CPU returns false, because the kernel accounts the bridge's work to other processes.
func (*Bridge) CPU() (float64, bool) { return 0, false }

// Lost returns 0, because no queue precedes the bridge.
func (*Bridge) Lost() uint64 { return 0 }

// Down does nothing, because the bridge is removed with its namespace.
func (*Bridge) Down() (string, error) { return "", nil }
