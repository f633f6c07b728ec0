package link

import (
	"errors"
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

func TestJoinIsUndone(t *testing.T) {
	eachJoin(t, func(bridge string) error {
		return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1400}, func() error {
			nic, err := netlink.LinkByName(lab.InsideNIC)
			if a := nic.Attrs(); a.MTU != 1400 || a.RawFlags&unix.IFF_UP == 0 || a.Promisc == 0 {
				t.Errorf("joined: %+v", a)
			}
			return err
		})
	})
}

// eachJoin calls f for each method of joining and each state of the NIC, and checks that
// it leaves everything as it was.
func eachJoin(t *testing.T, f func(bridge string) error) {
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
					return unchangedBy(t, func() error { return f(bridge) })
				})
			})
		}
	}
}

// TestKilledProcessIsUndone leaves a NIC as a killed process does and joins it again, by each
// method. Close must restore the state before the first join.
func TestKilledProcessIsUndone(t *testing.T) {
	for first, firstBridge := range methods {
		for second, secondBridge := range methods {
			for name, prepare := range nicStates {
				t.Run(first+"/"+second+"/"+name, func(t *testing.T) {
					lanetest.Do(t, network(t).Middle, func() error {
						nic, err := netlink.LinkByName(lab.InsideNIC)
						if err == nil {
							err = prepare(nic)
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

// TestRelease restores a NIC of a process that was killed while the NIC was joined, or while the
// process took the wire apart. A second Release must do nothing.
func TestRelease(t *testing.T) {
	for method, bridge := range methods {
		for name, until := range map[string]func(nic netlink.Link) error{
			"joined": func(netlink.Link) error { return nil },
			"parting": func(nic netlink.Link) error { // the bridge is not removed yet
				if bridge == "" {
					return nil
				}
				return errors.Join(netlink.SetPromiscOff(nic), netlink.LinkSetMTU(nic, 1500), netlink.LinkSetNoMaster(nic))
			},
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				lanetest.Do(t, network(t).Middle, func() error {
					nic, err := netlink.LinkByName(lab.InsideNIC)
					if err == nil && bridge != "" { // another program's classifier must stay
						err = netdev.AddClassifier(nic.Attrs().Index)
					}
					if err != nil {
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
							t.Error("Release took the NIC from a running instance")
						}
						return errors.Join(until(nic), tap.Close(), Release(lab.InsideNIC, bridge), Release(lab.InsideNIC, bridge))
					})
				})
			})
		}
	}
}

func TestJoinFails(t *testing.T) {
	tests := []struct {
		name    string
		prepare func() error
		change  func(*Config)
		want    string // the error of both methods, or only of the method in only
		only    string
	}{
		{"no nic", nil, func(c *Config) { c.NIC = "none" }, `join "none" to "fw-in": nic "none": no such interface`, ""},
		{"no tap", nil, func(c *Config) { c.TAP = "none" }, `join "nic-in" to "none": tap "none": Link not found`, ""},
		{"loopback", nil, func(c *Config) { c.NIC = "lo" }, `nic "lo" is the loopback interface`, ""},
		{"addresses", func() error { return addAddresses("10.9.0.1/24", "2001:db8:9::1/64", "fe80::9/64") }, nil,
			`nic "nic-in" has addresses that would stop working (10.9.0.1/24, 2001:db8:9::1/64): remove them, or choose a nic without`, ""},
		{"another's bridge", func() error { return addBridge("br0", true) }, nil,
			`nic "nic-in" already belongs to a bridge or bond (br0): remove it from there first`, ""},
		{"the bridge's name", func() error { return addBridge("fw-br", false) }, nil,
			`bridge "fw-br": device exists and does not belong to fragwall: remove it or choose another name`, "bridge"},
		{"netfilter of other bridges", func() error { return addBridge("br0", false) }, nil,
			`sysctl net.bridge.bridge-nf-call-iptables is 1, which sends bridged frames through netfilter; fragwall leaves it on, because bridge "br0" may need it`, "bridge"},
		{"classifier", addClassifier, nil,
			`redirect "nic-in" to "fw-in": add clsact: file exists: the interface has a classifier of another program (see "tc qdisc"): remove it, or set join = "bridge"`, "redirect"},
		{"mtu", nil, func(c *Config) { c.MTU = 10 }, `nic "nic-in": set mtu 10: invalid argument`, "redirect"},
		{"served by another", joinToOther, nil, `nic "nic-in" is already joined to "other" by another fragwall`, "redirect"},
		{"bridged by another", bridgeToOther, nil, `bridge "other-br": device exists and is used by another fragwall`, "bridge"},
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
