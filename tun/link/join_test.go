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

// methods are the ways to join, by the bridge's name that asks for each.
var methods = map[string]string{"redirect": "", "bridge": "fw-br"}

// network is two hosts and the middle between them; see [namespace].
func network(t *testing.T) *lab.Network {
	t.Helper()
	n, err := lab.New()
	lanetest.Require(t, err)
	t.Cleanup(n.Close)
	return n
}

// state describes all that joining may change in the calling thread's
// namespace.
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

// unchangedBy fails where f leaves another state than it found.
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

// nicStates are those that a NIC may be in when it is joined.
var nicStates = map[string]func(nic netlink.Link) error{
	"as made":     func(netlink.Link) error { return nil },
	"down":        netlink.LinkSetDown,
	"small mtu":   func(nic netlink.Link) error { return netlink.LinkSetMTU(nic, 1300) },
	"promiscuous": netlink.SetPromiscOn,
	"without ipv6": func(nic netlink.Link) error {
		return lab.Sysctl(map[string]string{netdev.IPv6Switch(nic.Attrs().Name): "1"})
	},
}

func TestJoinIsUndone(t *testing.T) {
	for method, bridge := range methods {
		for name, prepare := range nicStates {
			t.Run(method+"/"+name, func(t *testing.T) {
				lanetest.Do(t, network(t).Middle, func() error {
					nic, err := netlink.LinkByName(lab.InsideNIC)
					if err == nil {
						err = prepare(nic)
					}
					if err != nil {
						return err
					}
					return unchangedBy(t, func() error {
						return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400}, func() error {
							nic, err := netlink.LinkByName(lab.InsideNIC)
							if a := nic.Attrs(); a.MTU != 1400 || a.RawFlags&unix.IFF_UP == 0 || a.Promisc == 0 {
								t.Errorf("joined: %+v", a)
							}
							return err
						})
					})
				})
			})
		}
	}
}

// TestKilledProcessIsUndone leaves a NIC as a killed process does, joins it
// again by each method, and expects the state from before the first time.
func TestKilledProcessIsUndone(t *testing.T) {
	for first, firstBridge := range methods {
		for second, secondBridge := range methods {
			for name, prepare := range nicStates {
				t.Run(first+"/"+second+"/"+name, func(t *testing.T) {
					lanetest.Do(t, network(t).Middle, func() error {
						nic, err := netlink.LinkByName(lab.InsideNIC)
						if err == nil {
							err = errors.Join(prepare(nic), keepBridgesFromNetfilter())
						}
						if err != nil {
							return err
						}
						return unchangedBy(t, func() error {
							tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
							if err != nil {
								return err
							}
							if _, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: firstBridge, MTU: 1400}); err != nil {
								return err
							}
							if err := tap.Close(); err != nil {
								return err
							}
							return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: secondBridge, MTU: 1450}, func() error { return nil })
						})
					})
				})
			}
		}
	}
}

// TestRelease puts back what a killed process left, as it was at several
// moments, and does nothing where there is nothing left.
func TestRelease(t *testing.T) {
	for method, bridge := range methods {
		for name, until := range map[string]func(nic netlink.Link) error{
			"joined": func(netlink.Link) error { return nil },
			"parting": func(nic netlink.Link) error { // the bridge is yet to go
				if bridge == "" {
					return nil
				}
				return errors.Join(netlink.SetPromiscOff(nic), netlink.LinkSetMTU(nic, 1500), netlink.LinkSetNoMaster(nic))
			},
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				lanetest.Do(t, network(t).Middle, func() error {
					nic, err := netlink.LinkByName(lab.InsideNIC)
					if err == nil && bridge != "" { // somebody else's classifier is no matter
						err = netdev.AddClassifier(nic.Attrs().Index)
					}
					if err := errors.Join(err, keepBridgesFromNetfilter()); err != nil {
						return err
					}
					return unchangedBy(t, func() error {
						tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
						if err != nil {
							return err
						}
						_, err = Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400, Addressed: true})
						if err != nil {
							return err
						}
						if err := Release(lab.InsideNIC, bridge); err == nil {
							t.Error("it takes the NIC from a process that lives")
						}
						return errors.Join(until(nic), tap.Close(), Release(lab.InsideNIC, bridge), Release(lab.InsideNIC, bridge))
					})
				})
			})
		}
	}
}

// TestBridgeTellsWhose expects that of a bridge from its first moment on: the
// process may be killed then.
func TestBridgeTellsWhose(t *testing.T) {
	lanetest.Do(t, network(t).Middle, func() error {
		changes, done := make(chan netlink.LinkUpdate), make(chan struct{})
		if err := netlink.LinkSubscribe(changes, done); err != nil {
			return err
		}
		defer func() {
			close(done)
			for range changes { // what it is about to say
			}
		}()
		return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: "fw-br", MTU: 1400}, func() error {
			for u := range changes {
				if u.Attrs().Name != "fw-br" {
					continue
				}
				if before, ours := bridgeState(u.Link); !ours || before.mtu != 1500 {
					t.Errorf("the new bridge says %+v, %t", before, ours)
				}
				return nil
			}
			return errors.New("the kernel tells no more")
		})
	})
}

// TestBridgeTakesOver has a killed process's bridge stay until the NIC is in the
// next one, of the same name or of another: the process may be killed then.
func TestBridgeTakesOver(t *testing.T) {
	for _, name := range []string{"fw-br", "fw-other"} {
		t.Run(name, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
				if err != nil {
					return err
				}
				left, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: "fw-br", MTU: 1400})
				if err := errors.Join(err, tap.Close()); err != nil {
					return err
				}
				changes, done := make(chan netlink.LinkUpdate, 1000), make(chan struct{})
				if err := netlink.LinkSubscribe(changes, done); err != nil {
					return err
				}
				defer func() {
					close(done)
					for range changes { // what it is about to say
					}
				}()
				return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: name, MTU: 1400}, func() error {
					taken := false
					for u := range changes {
						master := u.Attrs().MasterIndex
						switch {
						case u.Attrs().Index == left.NIC && master != 0 && master != left.master:
							taken = true
						case u.Header.Type == unix.RTM_DELLINK && u.Attrs().Index == left.master && u.IfInfomsg.Family == unix.AF_UNSPEC:
							if !taken {
								t.Error("the bridge that the nic is in goes first")
							}
							return nil
						}
					}
					return errors.New("the kernel tells no more")
				})
			})
		})
	}
}

// TestRenamedBridgeGoes has a process be killed after the NIC left the renamed
// bridge of one that was killed before.
func TestRenamedBridgeGoes(t *testing.T) {
	for method, bridge := range methods {
		t.Run(method, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				return unchangedBy(t, func() error {
					attributes := netlink.NewLinkAttrs()
					attributes.Name = "fw-left0"
					attributes.Group = nicState{up: true}.mark()
					if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
						return err
					}
					return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400}, func() error { return nil })
				})
			})
		})
	}
}

// keepBridgesFromNetfilter has the namespace be as a killed process leaves it
// that joined by a bridge.
func keepBridgesFromNetfilter() error {
	return lab.Sysctl(map[string]string{
		"net/bridge/bridge-nf-call-iptables":  "0",
		"net/bridge/bridge-nf-call-ip6tables": "0",
		"net/bridge/bridge-nf-call-arptables": "0",
	})
}

func TestJoinFails(t *testing.T) {
	tests := []struct {
		name    string
		prepare func() error
		change  func(*Config)
		want    string // of both methods, or of the one in only
		only    string
	}{
		{"no nic", nil, func(c *Config) { c.NIC = "none" }, `join "none" to "fw-in": nic "none": no such interface`, ""},
		{"no tap", nil, func(c *Config) { c.TAP = "none" }, `join "nic-in" to "none": tap "none": Link not found`, ""},
		{"loopback", nil, func(c *Config) { c.NIC = "lo" }, `nic "lo" is the loopback interface`, ""},
		{"addresses", func() error { return addAddresses("10.9.0.1/24", "2001:db8:9::1/64", "fe80::9/64") }, nil,
			`nic "nic-in" has addresses that would stop working (10.9.0.1/24, 2001:db8:9::1/64): remove them, or choose a nic without`, ""},
		{"another's bridge", func() error { return addBridge("br0", true) }, nil,
			`nic "nic-in" belongs to another bridge or bond already (br0): take it out first`, ""},
		{"the bridge's name", func() error { return addBridge("fw-br", false) }, nil,
			`bridge "fw-br": device exists and is not fragwall's: remove it or choose another name`, "bridge"},
		{"netfilter of other bridges", func() error { return addBridge("br0", false) }, nil,
			`sysctl net.bridge.bridge-nf-call-iptables is 1 and sends bridged frames through netfilter; fragwall does not turn it off, because bridge "br0" may rely on it`, "bridge"},
		{"classifier", addClassifier, nil,
			`redirect "nic-in" to "fw-in": add clsact: file exists: the interface has a classifier of its own (see "tc qdisc"): remove it, or join by a bridge`, "redirect"},
		{"mtu", nil, func(c *Config) { c.MTU = 10 }, `nic "nic-in": set mtu 10: invalid argument`, "redirect"},
		{"served by another", joinToOther, nil, `nic "nic-in" is joined to "other" already, by another fragwall`, "redirect"},
		{"bridged by another", bridgeToOther, nil, `bridge "other-br": device exists and serves another fragwall`, "bridge"},
	}
	for _, tt := range tests {
		for method, bridge := range methods {
			if tt.only != "" && tt.only != method {
				continue
			}
			t.Run(tt.name+"/"+method, func(t *testing.T) {
				lanetest.Do(t, network(t).Middle, func() error {
					tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1400, Queues: 1})
					if err != nil {
						return err
					}
					defer tap.Close()
					if tt.prepare != nil {
						if err := tt.prepare(); err != nil {
							return err
						}
					}
					return unchangedBy(t, func() error {
						c := Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400}
						if tt.change != nil {
							tt.change(&c)
						}
						if _, err := Join(c); err == nil || !strings.Contains(err.Error(), tt.want) {
							t.Errorf("got %v\nwant %s", err, tt.want)
						}
						return nil
					})
				})
			})
		}
	}
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

// joinToOther joins the NIC to a TAP that stays. The devices go with the
// test's namespace.
func joinToOther() error { return join("") }

func bridgeToOther() error { return join("other-br") }

func join(bridge string) error {
	if _, err := tap.Open(tun.Config{Name: "other", MTU: 1400, Queues: 1}); err != nil {
		return err
	}
	_, err := Join(Config{TAP: "other", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400})
	return err
}
