package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"fragwall/integration/lab"
)

// middle is what stands between the hosts.
type middle struct {
	name string
	// up puts it there; nil has a cable join the hosts.
	up func(n *lab.Network) (running, error)
}

// running is a middle under way.
type running interface {
	// memory returns the bytes that it takes now.
	memory() int64
	// cpu returns the seconds that it took so far; false where the kernel does
	// its work in the name of others.
	cpu() (float64, bool)
	// lost returns the frames that did not get as far as being looked at.
	lost() uint64
	// down takes it away, and returns what it says of its work.
	down() (string, error)
}

// The middles, by the names that -middles knows them by.
var (
	cableMiddle    = middle{"cable", nil}
	bridgeMiddle   = middle{"bridge", func(n *lab.Network) (running, error) { return newBridge(n, false) }}
	conntrack      = middle{"conntrack", func(n *lab.Network) (running, error) { return newBridge(n, true) }}
	reassembleBox  = middle{"reassemble", func(n *lab.Network) (running, error) { return newBox(n, "reassemble") }}
	validateBox    = middle{"validate", func(n *lab.Network) (running, error) { return newBox(n, "validate") }}
	allMiddles     = []middle{cableMiddle, conntrack, reassembleBox, validateBox}
	protectMiddles = []middle{bridgeMiddle, conntrack, reassembleBox}
)

// bridge is the kernel's, with connection tracking or without.
type bridge struct {
	network *lab.Network
}

// bridgeRules are the policy of the conntrack bridge, that of boxConfig.
const bridgeRules = `
table inet attack {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		ct state invalid drop
		udp dport { %d, %d, %d } accept
		tcp dport %d accept
		meta l4proto ipv6-icmp accept
	}
}
`

// newBridge joins the middle's interfaces. With tracking, bridged packets pass
// the IP layer's netfilter (br_netfilter), where connection tracking puts
// fragments together first.
func newBridge(n *lab.Network, tracking bool) (running, error) {
	err := n.Middle.Do(func() error {
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
		call := map[bool]string{true: "1", false: "0"}[tracking]
		err := lab.Sysctl(map[string]string{
			"net/bridge/bridge-nf-call-iptables":  call,
			"net/bridge/bridge-nf-call-ip6tables": call,
		})
		switch {
		case errors.Is(err, os.ErrNotExist) && !tracking:
			return nil
		case err != nil || !tracking:
			return err
		}
		return load(fmt.Sprintf(bridgeRules, datagramPort, echoPort, harmlessPort, streamPort))
	})
	return &bridge{network: n}, err
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

// memory implements [running]: what fragments take in the namespace.
func (b *bridge) memory() (bytes int64) {
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

// cpu implements [running].
func (*bridge) cpu() (float64, bool) { return 0, false }

// lost implements [running].
func (*bridge) lost() uint64 { return 0 }

// down implements [running]: the namespace takes all with it.
func (*bridge) down() (string, error) { return "", nil }
