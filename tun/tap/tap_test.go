package tap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
	"fragwall/tun/tuntest"
)

// TestTAPLives checks a device while it is open, and that it is removed afterwards.
func TestTAPLives(t *testing.T) {
	for _, c := range []tun.Config{
		{Name: "fw-in", MTU: 1400, Queues: 1},
		{Name: "fw-in", MTU: 65521, Queues: 3},
		{Name: "fw-in", MTU: 9000, Queues: 3, Offload: true},
	} {
		space := lanetest.Namespace(t)
		lanetest.Do(t, space, func() error {
			tap, err := Open(c)
			if err != nil {
				return err
			}
			link, err := netlink.LinkByName(c.Name)
			if err != nil {
				return err
			}
			if a := link.Attrs(); a.MTU != c.MTU || a.RawFlags&unix.IFF_UP == 0 || link.(*netlink.Tuntap).Queues != 0 && link.(*netlink.Tuntap).Queues != tap.config.Queues {
				t.Errorf("%+v: %+v", c, link)
			}
			if owner := link.(*netlink.Tuntap).Owner; owner != unusedID && everyID() {
				t.Errorf("its owner is user %d", owner)
			}
			if n := link.Attrs().TxQLen; n != queueLength {
				t.Errorf("its queue holds %d frames", n)
			}
			if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + c.Name + "/disable_ipv6"); err == nil && string(off) != "1\n" {
				t.Errorf("IPv6 is enabled")
			}
			if err := errors.Join(tap.Close(), tap.Close()); err != nil {
				t.Error(err)
			}
			if _, err := netlink.LinkByName(c.Name); !netdev.Gone(err) {
				t.Errorf("%+v still exists: %v", c, err)
			}
			return nil
		})
	}
}

func TestOpenTAPHeld(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		held, err := Open(tun.Config{Name: "taken", MTU: 1500, Queues: 1})
		if err != nil {
			return err
		}
		const want = `open tap "taken": device exists and another process uses it, perhaps another fragwall: end that process or choose another name`
		if _, err := Open(held.config); !errors.Is(err, netdev.ErrExists) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		return held.Close()
	})
}

func TestOpenTAPFails(t *testing.T) {
	tests := []struct {
		name    string
		c       tun.Config
		prepare func() error
		want    string
	}{
		{"device exists", tun.Config{Name: "taken", MTU: 1500}, func() error { return addVeth("taken", "other") },
			`open tap "taken": device exists and does not belong to fragwall: remove it or choose another name`},
		{"mtu too large", tun.Config{Name: "fw", MTU: 70000}, nil, `open tap "fw": set mtu 70000: invalid argument`},
		{"no right", tun.Config{Name: "fw", MTU: 1500}, dropNetAdmin, `CAP_NET_ADMIN is missing; run as root or grant it`},
	}
	for _, tt := range tests {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/offload=%v", tt.name, offload), func(t *testing.T) {
				space := lanetest.Namespace(t)
				tt.c.Queues, tt.c.Offload = 2, offload
				before := lanetest.Descriptors(t)
				lanetest.Do(t, space, func() error {
					if tt.prepare != nil {
						if err := tt.prepare(); err != nil {
							return err
						}
					}
					_, err := Open(tt.c)
					if err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("got %v, want %s", err, tt.want)
					}
					if _, err := netlink.LinkByName("fw"); !netdev.Gone(err) {
						t.Errorf("the device exists: %v", err)
					}
					return nil
				})
				// water does not close its descriptor if the kernel denies the device.
				if n := lanetest.Descriptors(t); n != before && (offload || tt.name != "no right") {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
		}
	}
}

func addVeth(name, peer string) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: peer})
}

func dropNetAdmin() error { return dropCapabilities(unix.CAP_NET_ADMIN) }

// dropCapabilities removes capabilities from the calling thread.
func dropCapabilities(list ...int) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		return err
	}
	for _, c := range list {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	return unix.Capset(&h, &data[0])
}

// TestLanes sends frames through lanes with one system call per frame.
func TestLanes(t *testing.T) {
	lanetest.TestLanes(t, lanetest.OnPorts(Open))
	lanetest.TestTAPLanes(t, lanetest.OnPorts(Open))
}

// TestUnlikePorts tries to make lanes from a TAP with offload to a TAP without, and to another kind
// of port.
func TestUnlikePorts(t *testing.T) {
	from := &TAP{config: tun.Config{Name: "a", Offload: true}}
	for want, to := range map[string]tun.Port{
		`join tap "a" to tap "b": only one has offload`: &TAP{config: tun.Config{Name: "b"}},
		`join tap "a" to "c": not a tap`:                tuntest.NewPort("c"),
	} {
		if _, err := from.Lanes(to); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
