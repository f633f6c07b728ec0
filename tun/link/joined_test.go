package link

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
	"fragwall/tun/netdev"
	"fragwall/tun/tap"
)

// TestNICVanishes removes the NIC of a junction. Close must succeed.
func TestNICVanishes(t *testing.T) {
	for method, bridge := range methods {
		t.Run(method, func(t *testing.T) {
			lanetest.Do(t, network(t).Middle, func() error {
				return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1500}, func() error {
					nic, err := netlink.LinkByName(lab.InsideNIC)
					if err != nil {
						return err
					}
					return netlink.LinkDel(nic)
				})
			})
		})
	}
}

// TestNICMoves moves the NIC of a junction to another namespace and back, by which the kernel
// removes what joins it. Close must succeed.
func TestNICMoves(t *testing.T) {
	for method, bridge := range methods {
		t.Run(method, func(t *testing.T) {
			n := network(t)
			move := func(from, to *lab.Namespace) error {
				return to.Do(func() error {
					target, err := os.Open("/proc/thread-self/ns/net")
					if err != nil {
						return err
					}
					defer target.Close()
					return from.Do(func() error {
						nic, err := netlink.LinkByName(lab.InsideNIC)
						if err != nil {
							return err
						}
						return netlink.LinkSetNsFd(nic, int(target.Fd()))
					})
				})
			}
			lanetest.Do(t, n.Middle, func() error {
				return joined(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1500}, func() error {
					elsewhere, err := lab.NewNamespace("elsewhere") // no device there has its index
					if err != nil {
						return err
					}
					defer elsewhere.Close()
					return errors.Join(move(n.Middle, elsewhere), move(elsewhere, n.Middle))
				})
			})
		})
	}
}

// TestJoinedWireIsTransparent sends frames from host to host through two joined TAPs. Frames of
// every type, to every MAC, must arrive unchanged.
func TestJoinedWireIsTransparent(t *testing.T) {
	header := func(dst, rest string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(dst+"0200000000aa"+rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return append(b, bytes.Repeat([]byte{0x5a}, 60)...)
	}
	frames := map[string][]byte{
		"broadcast":              header("ffffffffffff", "88b5"),
		"to an unknown mac":      header("0200000000bb", "88b5"),
		"to a group":             header("33330000abcd", "88b5"),
		"ieee 802.3":             header("0200000000bb", "0040 aaaa03"),
		"lldp":                   header("0180c200000e", "88cc"),
		"eapol":                  header("0180c2000003", "888e"),
		"priority tag":           header("0200000000bb", "8100 e000 88b5"),
		"vlan":                   header("0200000000bb", "8100 0005 88b5"),
		"service vlan":           header("0200000000bb", "88a8 0005 88b5"),
		"vlan in a service vlan": header("0200000000bb", "88a8 0005 8100 0006 88b5"),
		"three tags":             header("0200000000bb", "8100 0005 8100 0006 8100 0007 88b5"),
		"shortest":               header("0200000000bb", "88b5")[:14],
		"longest":                append(header("0200000000bb", "88b5"), make([]byte, 1514-74)...),
		"longest with a tag":     append(header("0200000000bb", "8100 0005 88b5"), make([]byte, 1518-78)...),
		"spanning tree":          header("0180c2000000", "0026 424203"),
		"lacp":                   header("0180c2000002", "8809 01"),
	}
	for method, bridge := range methods {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/offload=%v", method, offload), func(t *testing.T) {
				n := network(t)
				stop := wireThrough(t, n, bridge, offload)
				sender, receiver := hostTap(t, n.Hosts[verdict.Inside].Namespace), hostTap(t, n.Hosts[verdict.Outside].Namespace)
				expected := maps.Clone(frames)
				if method == "redirect" { // a bridge does not forward it
					expected["mac pause"] = header("0180c2000001", "8808 0001 ffff")
				}
				for name, f := range expected {
					if err := sender.Send(f); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					got, err := receiver.Receive(time.Now().Add(lanetest.Timeout))
					for err == nil && !bytes.Equal(got[6:12], f[6:12]) { // a frame of the host itself
						got, err = receiver.Receive(time.Now().Add(lanetest.Timeout))
					}
					if err != nil || !bytes.Equal(got, f) {
						t.Errorf("%s: %v, got %d bytes\n% .40x\nwant %d\n% .40x", name, err, len(got), got, len(f), f)
					}
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func hostTap(t *testing.T, n *lab.Namespace) *lab.Tap {
	t.Helper()
	tap, err := n.OpenTap(lab.HostNIC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close() })
	return tap
}

// wireThrough joins the NICs of the middle to TAPs, and forwards frames from inside to outside.
func wireThrough(t *testing.T, n *lab.Network, bridge string, offload bool) (stop func() error) {
	t.Helper()
	c := tun.Config{MTU: 1500, Queues: 2, Offload: offload}
	join := func(name, nic string) tun.Port {
		port := lanetest.OpenPort(t, n.Middle, tap.Open, name, c)
		lanetest.Do(t, n.Middle, func() error {
			j := Config{TAP: name, NIC: nic, MTU: c.MTU}
			if bridge != "" {
				j.Bridge = name + "-br"
			}
			junction, err := Join(j)
			if err == nil {
				t.Cleanup(func() { lanetest.Do(t, n.Middle, junction.Close) })
			}
			return err
		})
		return port
	}
	r := &lanetest.Rig{From: join(lanetest.From, lab.InsideNIC), To: join(lanetest.To, lab.OutsideNIC)}
	var err error
	if r.Lanes, err = r.From.Lanes(r.To); err != nil {
		t.Fatal(err)
	}
	return r.Forward(lanetest.Unchanged)
}

// TestMTUTooSmallForIPv6 sets an MTU at which the kernel removes IPv6 from the NIC, and then one
// at which it adds IPv6 again. IPv6 must stay disabled.
func TestMTUTooSmallForIPv6(t *testing.T) {
	for method, bridge := range methods {
		for _, addressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/addressed %t", method, addressed), func(t *testing.T) {
				lanetest.Do(t, network(t).Middle, func() error {
					tap, err := tap.Open(tun.Config{Name: "fw-in", MTU: 1500, Queues: 1})
					if err != nil {
						return err
					}
					defer tap.Close()
					j, err := Join(Config{TAP: "fw-in", NIC: lab.InsideNIC, Bridge: bridge, MTU: 1500, Addressed: addressed})
					if err != nil {
						return err
					}
					for _, mtu := range []int{1200, 1500} {
						if err := errors.Join(netdev.SetMTU(j.NIC, mtu), j.SetMTU(mtu)); err != nil {
							return err
						}
					}
					silent := []string{lab.InsideNIC}
					if addressed {
						silent = nil
						mode, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + lab.InsideNIC + "/addr_gen_mode")
						if err != nil || strings.TrimSpace(string(mode)) != "1" {
							t.Errorf("the nic generates addresses: mode %q, %v", mode, err)
						}
					}
					if bridge != "" {
						silent = append(silent, bridge)
					}
					for _, device := range silent {
						if off, err := netdev.Sysctl(netdev.IPv6Switch(device)); off != "1" {
							t.Errorf("%s: disable_ipv6 %q, %v", device, off, err)
						}
					}
					return j.Close()
				})
			})
		}
	}
}
