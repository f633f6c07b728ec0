package link

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
	"fragwall/tun/netdev"
	"fragwall/tun/tap"
)

// methods are the ways to join, with the value of [Config.Bridge] for each.
var methods = map[string]string{"redirect": "", "bridge": "fw-br"}

// network returns two hosts and the middle between them.
func network(t *testing.T) *lab.Network {
	t.Helper()
	n, err := lab.New()
	lanetest.Require(t, err)
	t.Cleanup(n.Close)
	return n
}

// state describes everything that joining may change in the calling thread's namespace.
func state() (map[string]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	s := make(map[string]string)
	for _, l := range links {
		a := l.Attrs()
		qdiscs, err := netlink.QdiscList(l)
		if err != nil {
			return nil, err
		}
		off, _ := os.ReadFile("/proc/sys/net/ipv6/conf/" + a.Name + "/disable_ipv6")
		const flags = unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_NOARP | unix.IFF_ALLMULTI
		s[a.Name] = fmt.Sprintf("mtu %d, flags %x, promiscuity %d, master %d, alias %q, %d qdiscs, disable_ipv6 %s",
			a.MTU, a.RawFlags&flags, a.Promisc, a.MasterIndex, a.Alias, len(qdiscs), strings.TrimSpace(string(off)))
	}
	for _, family := range []string{"iptables", "ip6tables", "arptables"} {
		value, _ := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + family)
		s[family] = string(value)
	}
	return s, nil
}

// unchangedBy fails the test if f changes the state.
func unchangedBy(t *testing.T, f func() error) error {
	t.Helper()
	before, err := state()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := state()
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		t.Errorf("before\n%s\nafter\n%s", show(before), show(after))
	}
	return nil
}

func show(s map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "\t%s: %s\n", name, s[name])
	}
	return b.String()
}

// joined makes a TAP and joins it to a NIC while f runs.
func joined(c Config, f func() error) error {
	tap, err := tap.Open(tun.Config{Name: c.TAP, MTU: c.MTU, Queues: 1})
	if err != nil {
		return err
	}
	defer tap.Close()
	j, err := Join(c)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return errors.Join(err, j.Close())
	}
	return errors.Join(j.Close(), j.Close(), tap.Close())
}

// nicStates are states that a NIC may have before it is joined.
var nicStates = map[string]func(nic netlink.Link) error{
	"as made":     func(netlink.Link) error { return nil },
	"down":        netlink.LinkSetDown,
	"small mtu":   func(nic netlink.Link) error { return netlink.LinkSetMTU(nic, 1300) },
	"promiscuous": netlink.SetPromiscOn,
	"without ipv6": func(nic netlink.Link) error {
		return lab.Sysctl(map[string]string{netdev.IPv6Switch(nic.Attrs().Name): "1"})
	},
}

func addAddresses(addresses ...string) error {
	nic, err := netlink.LinkByName(lab.InsideNIC)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(nic, a); err != nil {
			return err
		}
	}
	return nil
}

func addBridge(name string, enslave bool) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	if err := lab.Sysctl(map[string]string{"net/bridge/bridge-nf-call-iptables": "1"}); err != nil || !enslave {
		return err
	}
	nic, err := netlink.LinkByName(lab.InsideNIC)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(nic, bridge)
}

func addClassifier() error {
	nic, err := netlink.LinkByName(lab.InsideNIC)
	if err != nil {
		return err
	}
	return netdev.AddClassifier(nic.Attrs().Index)
}

// joinToOther joins the NIC to a TAP that stays open. The devices are removed with the test's
// namespace.
func joinToOther() error { return join("") }

func bridgeToOther() error { return join("other-br") }

func join(bridge string) error {
	if _, err := tap.Open(tun.Config{Name: "other", MTU: 1400, Queues: 1}); err != nil {
		return err
	}
	_, err := Join(Config{TAP: "other", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400})
	return err
}
