package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// mtuOf returns the MTU of a device.
func mtuOf(t *testing.T, ns *lab.Namespace, device string) (mtu int) {
	t.Helper()
	must(t, ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			mtu = link.Attrs().MTU
		}
		return err
	}))
	return mtu
}

// ownMTU begins configurations that set no MTU.
var ownMTU = pathKey + `
[inside]
tap = "fw-in"
nic = "nic-in"
[outside]
tap = "fw-out"
nic = "nic-out"
`

// setMTUs sets the MTU of both cables, on both ends.
func setMTUs(t *testing.T, n *lab.Network, mtu int) {
	t.Helper()
	ip(t, n.Middle, fmt.Sprintf("link set %s mtu %d\nlink set %s mtu %d", lab.InsideNIC, mtu, lab.OutsideNIC, mtu))
	for _, h := range n.Hosts {
		ip(t, h.Namespace, fmt.Sprintf("link set %s mtu %d", h.NIC, mtu))
	}
}

// TestNICMTU joins NICs with an MTU of 9000, which must not change. Then the MTU of one NIC
// changes at run time, and its TAP must follow.
func TestNICMTU(t *testing.T) {
	for _, join := range []string{"", "join = \"bridge\"\n"} {
		t.Run(join, func(t *testing.T) {
			n := newNetwork(t)
			must(t, n.Middle.Do(noNetfilter))
			setMTUs(t, n, 9000)
			before := describe(t, n.Middle)
			configuration := strings.Replace(ownMTU, "[outside]", join+"[outside]", 1) + join + acceptAll
			b := &box{Network: n}
			b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, configuration))
			b.ready(t)
			for _, device := range []string{lab.InsideNIC, lab.OutsideNIC, "fw-in", "fw-out"} {
				if mtu := mtuOf(t, n.Middle, device); mtu != 9000 {
					t.Errorf("%s has an mtu of %d", device, mtu)
				}
			}
			whole := []int{8000, 8972}
			exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false, whole)

			// The MTU of the outside becomes less than the minimum of IPv6. Longer packets
			// are dropped, and the event has the packet length and the MTU. When the MTU
			// is raised, the kernel enables IPv6 again, and the program must disable it.
			running := describe(t, n.Middle)
			mark := len(b.stderr.String())
			ip(t, n.Middle, "link set "+lab.OutsideNIC+" mtu 1200")
			b.stderr.await(t, b.process, mark, `inside has mtu 9000 and outside has mtu 1200`)
			eventually(t, func() error {
				if mtu := mtuOf(t, n.Middle, "fw-out"); mtu != 1200 {
					return fmt.Errorf("the tap has an mtu of %d", mtu)
				}
				return nil
			})
			client := listen(t, n.Hosts[verdict.Inside], false, 0)
			server := listen(t, n.Hosts[verdict.Outside], false, 0)
			_, err := client.WriteToUDPAddrPort(packettest.Body(3000), address(server))
			must(t, err)
			b.stderr.await(t, b.process, mark, `reason=exceeds_mtu .*length=3028 mtu=1200`)

			mark = len(b.stderr.String())
			ip(t, n.Middle, "link set "+lab.OutsideNIC+" mtu 9000")
			b.stderr.await(t, b.process, mark, `mtu of a nic changed`)
			eventually(t, func() error {
				if now := describe(t, n.Middle); now != running {
					return fmt.Errorf("while the program runs, before the changes:\n%s\nafter:\n%s", running, now)
				}
				return nil
			})
			exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false, whole)
			b.stop(t)
			sameAs(t, n.Middle, before)
		})
	}
}

// TestMTURefused raises the MTU of a NIC above that with which the TAP was opened. The log must say
// once that the TAP cannot follow, even if the NIC changes several times.
func TestMTURefused(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n}
	configuration := strings.ReplaceAll(ownMTU, "nic = ", "offload = false\nnic = ")
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, configuration+acceptAll))
	b.ready(t)
	mark := len(b.stderr.String())
	ip(t, n.Middle, "link set "+lab.OutsideNIC+" mtu 9000")
	b.stderr.await(t, b.process, mark, "cannot follow the mtu of a nic")
	for _, state := range []string{"down", "up"} {
		ip(t, n.Middle, "link set "+lab.OutsideNIC+" "+state)
		b.stderr.await(t, b.process, mark, "device=nic-out link="+state)
	}
	b.stop(t)
	if times := strings.Count(b.stderr.String(), "cannot follow the mtu"); times != 1 {
		t.Errorf("the log says %d times that the mtu cannot be followed, want once:\n%s", times, b.stderr.String())
	}
}

// TestSidecarFollowsMTU lowers the MTU of the pod's link at run time. The workload must send packets
// that fit into the new MTU, and the NIC must keep it after the sidecar has ended.
func TestSidecarFollowsMTU(t *testing.T) {
	p := bridgedPod(t)
	b := p.startSidecar(t, sidecarRules, t.TempDir())
	ip(t, p.workload.Namespace, "link set eth0 mtu 1400")
	ip(t, p.peer.Namespace, "link set eth0 mtu 1400")
	eventually(t, func() error {
		for _, tap := range []string{"fw-in", "fw-out"} {
			if mtu := mtuOf(t, p.workload.Namespace, tap); mtu != 1400 {
				return fmt.Errorf("%s has an mtu of %d", tap, mtu)
			}
		}
		return nil
	})
	eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{1300, 1372, 4000}) })
	b.end(t)
	if mtu := mtuOf(t, p.workload.Namespace, "eth0"); mtu != 1400 {
		t.Errorf("after the sidecar has ended, the nic has an mtu of %d", mtu)
	}
}

// sideStatus is the part of the status that describes a side's NIC.
type sideStatus struct {
	NIC   string `json:"nic"`
	Link  string `json:"link"`
	MTU   int    `json:"mtu_bytes"`
	Speed uint64 `json:"link_speed_bytes_per_second"`
}

// awaitLinks waits until status and readiness report the links of both sides.
func awaitLinks(t *testing.T, ns *lab.Namespace, inside, outside string, ready bool) map[string]sideStatus {
	t.Helper()
	var r struct{ Sides map[string]sideStatus }
	eventually(t, func() error {
		text, err := ask(ns, "/api/status")
		if err == nil {
			err = json.Unmarshal([]byte(text), &r)
		}
		if err != nil {
			return err
		}
		_, notReady := ask(ns, "/readyz")
		if r.Sides["inside"].Link != inside || r.Sides["outside"].Link != outside || (notReady == nil) != ready ||
			!ready && !strings.Contains(notReady.Error(), "503") {
			return fmt.Errorf("status %+v, readiness: %v; want %s, %s and %v", r.Sides, notReady, inside, outside, ready)
		}
		return nil
	})
	return r.Sides
}

// hasCarrier reports whether a host's NIC has a carrier.
func hasCarrier(t *testing.T, h *lab.Host) bool {
	t.Helper()
	return strings.Contains(ip(t, h.Namespace, "link show dev "+h.NIC), "LOWER_UP")
}

// TestLinkDownReported takes down a host's end of a cable. Status, log and readiness must report it, and
// the link of the other side must stay up.
func TestLinkDownReported(t *testing.T) {
	n := newNetwork(t)
	ip(t, n.Middle, "link set lo up")
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, ownMTU+acceptAll))
	b.ready(t)
	sides := awaitLinks(t, n.Middle, "up", "up", true)
	if want := (sideStatus{lab.OutsideNIC, "up", lab.MTU, 10e9 / 8}); sides["outside"] != want { // a veth reports 10 Gbit/s
		t.Errorf("the status says %+v, want %+v", sides["outside"], want)
	}
	outside := n.Hosts[verdict.Outside]
	mark := len(b.stderr.String())
	ip(t, outside.Namespace, "link set "+outside.NIC+" down")
	b.stderr.await(t, b.process, mark, `level=WARN msg=link from=outside device=nic-out link=down`)
	awaitLinks(t, n.Middle, "up", "down", false)
	if !hasCarrier(t, n.Hosts[verdict.Inside]) {
		t.Error("the inside host has lost its link, too")
	}
	ip(t, outside.Namespace, "link set "+outside.NIC+" up")
	b.stderr.await(t, b.process, mark, `level=INFO msg=link from=outside device=nic-out link=up`)
	awaitLinks(t, n.Middle, "up", "up", true)
	b.stop(t)
}

// TestDevicesDownReported takes down the TAPs and a bridge, one at a time. Status, log and readiness must
// report each.
func TestDevicesDownReported(t *testing.T) {
	n := newNetwork(t)
	must(t, n.Middle.Do(noNetfilter))
	ip(t, n.Middle, "link set lo up")
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, ownMTU+"join = \"bridge\"\n"+acceptAll))
	b.ready(t)
	awaitLinks(t, n.Middle, "up", "up", true)
	for device, side := range map[string]string{"fw-in": "inside", "fw-out": "outside", "fw-out-br": "outside"} {
		mark := len(b.stderr.String())
		ip(t, n.Middle, "link set "+device+" down")
		b.stderr.await(t, b.process, mark, fmt.Sprintf(`level=WARN msg=link from=%s device=%s link=down`, side, device))
		links := map[string]string{"inside": "up", "outside": "up"}
		links[side] = "down"
		awaitLinks(t, n.Middle, links["inside"], links["outside"], false)
		ip(t, n.Middle, "link set "+device+" up")
		b.stderr.await(t, b.process, mark, fmt.Sprintf(`level=INFO msg=link from=%s device=%s link=up`, side, device))
		awaitLinks(t, n.Middle, "up", "up", true)
	}
	b.stop(t)
}

// TestLinkDownPropagated takes down the link of each host. With on_link_down = "propagate", the link
// of the other host must go down, too. At the end the program stops while a link is down.
func TestLinkDownPropagated(t *testing.T) {
	n := newNetwork(t)
	ip(t, n.Middle, "link set lo up")
	before := describe(t, n.Middle)
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, "on_link_down = \"propagate\"\n"+ownMTU+acceptAll))
	b.ready(t)
	for side := range verdict.Side(verdict.Sides) {
		h, other := n.Hosts[side], n.Hosts[side.Other()]
		ip(t, h.Namespace, "link set "+h.NIC+" down")
		eventually(t, func() error {
			if hasCarrier(t, other) {
				return fmt.Errorf("the %v host still has a link", side.Other())
			}
			return nil
		})
		ip(t, h.Namespace, "link set "+h.NIC+" up")
		eventually(t, func() error {
			if !hasCarrier(t, h) || !hasCarrier(t, other) {
				return errors.New("a host has no link")
			}
			return nil
		})
		awaitLinks(t, n.Middle, "up", "up", true)
	}
	inside := n.Hosts[verdict.Inside]
	ip(t, inside.Namespace, "link set "+inside.NIC+" down")
	awaitLinks(t, n.Middle, "down", "down", false)
	b.stop(t)
	sameAs(t, n.Middle, before)
}

// TestSidecarPropagatesLinkDown checks that the TAP of the workload loses its carrier when the pod's
// link goes down.
func TestSidecarPropagatesLinkDown(t *testing.T) {
	p := routedPod(t)
	before := snapshot(t, p.workload.Namespace)
	b := p.startSidecar(t, "on_link_down = \"propagate\"\n"+sidecarRules, t.TempDir())
	carrier := func(want bool) {
		t.Helper()
		eventually(t, func() error {
			if text := ip(t, p.workload.Namespace, "link show dev fw-in"); strings.Contains(text, "LOWER_UP") != want {
				return fmt.Errorf("want carrier %v:\n%s", want, text)
			}
			return nil
		})
	}
	ip(t, p.peer.Namespace, "link set cali0 down")
	carrier(false)
	ip(t, p.peer.Namespace, "link set cali0 up\nroute replace 10.1.1.5/32 dev cali0\n-6 route replace 2001:db8:1::5/128 dev cali0")
	carrier(true)
	exchange(t, p.workload, p.peer, false, []int{4000})
	b.end(t)
	after := snapshot(t, p.workload.Namespace)
	for _, subject := range []string{"addr", "route", "route6"} {
		if was, is := strings.Join(before[subject], "\n"), strings.Join(after[subject], "\n"); was != is {
			t.Errorf("%s before:\n%s\nafter:\n%s", subject, was, is)
		}
	}
}

// TestJoinRepaired removes the join of a NIC: a qdisc, a filter, a port or a bridge. The program must
// detect and log this, and join the NIC again.
func TestJoinRepaired(t *testing.T) {
	for name, c := range map[string]struct{ join, remove string }{
		"clsact of the nic": {"", "qdisc del dev nic-in clsact"},
		"clsact of the tap": {"", "qdisc del dev fw-in clsact"},
		"filter":            {"", "filter del dev nic-in ingress"},
		"port of a bridge":  {"join = \"bridge\"\n", "link set nic-in nomaster"},
		"bridge":            {"join = \"bridge\"\n", "link del fw-in-br"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			must(t, n.Middle.Do(noNetfilter))
			before := describe(t, n.Middle)
			b := &box{Network: n}
			b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, strings.Replace(ownMTU, "[outside]", c.join+"[outside]", 1)+acceptAll))
			b.ready(t)
			exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false, []int{100})
			mark := len(b.stderr.String())
			if strings.HasPrefix(c.remove, "link") {
				ip(t, n.Middle, c.remove)
			} else {
				tc(t, n.Middle, c.remove)
			}
			b.stderr.await(t, b.process, mark, `another program removed the join of a nic to its tap; joining it again`)
			eventually(t, func() error { return answers(n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]) })
			b.signal(t, syscall.SIGTERM)
			if code := b.wait(t); code != 0 {
				t.Errorf("exit code %d:\n%s", code, b.stderr.String())
			}
			sameAs(t, n.Middle, before)
		})
	}
}

// tc runs a command of tc(8) in a namespace.
func tc(t *testing.T, ns *lab.Namespace, command string) {
	t.Helper()
	must(t, ns.Do(func() error {
		out, err := exec.Command("tc", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tc %s: %w\n%s", command, err, out)
		}
		return nil
	}))
}

// answers returns an error if a host gets no echo reply from another one.
func answers(from, to *lab.Host) error {
	return from.Do(func() error {
		out, err := exec.Command("ping", "-n", "-c", "1", "-W", "1", to.IPv4.String()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping: %w\n%s", err, out)
		}
		return nil
	})
}

// TestFewDescriptors starts the program with a limit of open files that is too low. The program must
// print an error before it creates anything. With the minimum that the error contains, the program
// must run.
func TestFewDescriptors(t *testing.T) {
	n := newNetwork(t)
	must(t, n.Middle.Do(noNetfilter))
	before := describe(t, n.Middle)
	limited := func(limit string) *process {
		p := &process{ended: make(chan struct{})}
		c := exec.Command("sh", "-c", "ulimit -n "+limit+"; exec \"$@\"", "sh", program, "run", "-c", configure(t, ownMTU+acceptAll))
		c.Stdout, c.Stderr = &p.stdout, &p.stderr
		p.begin(t, n.Middle, nil, c)
		return p
	}
	p := limited("20")
	if code := p.wait(t); code != 1 || !strings.Contains(p.stderr.String(), "limit of open files is 20") || strings.Count(p.stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d:\n%s", code, p.stderr.String())
	}
	sameAs(t, n.Middle, before)
	need := regexp.MustCompile(`need (\d+)`).FindStringSubmatch(p.stderr.String())
	if need == nil {
		t.Fatalf("the error does not contain the number of files needed:\n%s", p.stderr.String())
	}
	b := &box{Network: n, process: limited(need[1])}
	b.ready(t)
	exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false, []int{4000})
	b.stop(t)
	sameAs(t, n.Middle, before)
}

// TestReadOnlySysctls runs the program with read-only sysctls, as in a container. The program must run
// if the sysctls have the right values. Otherwise the error must say which value to set.
func TestReadOnlySysctls(t *testing.T) {
	bridged := strings.Replace(sidecarRules, "[policy]", "nic = \"eth0\"\njoin = \"bridge\"\n[policy]", 1)
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("sidecar by a bridge, bridge-nf-call-iptables %v", filtered), func(t *testing.T) {
			p := bridgedPod(t)
			if !filtered {
				must(t, p.workload.Do(noNetfilter))
			} else if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal("the kernel has no br_netfilter")
				}
				t.Skip("the kernel has no br_netfilter")
			}
			before := snapshot(t, p.workload.Namespace)
			s := &box{process: launch(t, p.workload.Namespace, readOnlySysctls, "sidecar", "-c", configure(t, bridged), "--nic", "eth0", "--state", t.TempDir())}
			if filtered {
				if code := s.wait(t); code != 1 || !strings.Contains(s.stderr.String(), "set net.bridge.bridge-nf-call-iptables = 0 where the network namespace is created") {
					t.Errorf("exit code %d:\n%s", code, s.stderr.String())
				}
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
				return
			}
			s.ready(t)
			eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
			s.end(t)
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
	for _, quiet := range []string{"0", "1"} {
		t.Run("run, disable_ipv6 "+quiet, func(t *testing.T) {
			n := newNetwork(t)
			must(t, n.Middle.Do(func() error {
				return lab.Sysctl(map[string]string{"net/ipv6/conf/nic-in/disable_ipv6": quiet, "net/ipv6/conf/nic-out/disable_ipv6": quiet})
			}))
			if quiet == "0" {
				awaitLinkLocal(t, n)
			}
			before := describe(t, n.Middle)
			b := &box{Network: n}
			b.process = launch(t, n.Middle, readOnlySysctls, "run", "-c", configure(t, ownMTU+acceptAll))
			if quiet == "0" {
				if code := b.wait(t); code != 1 || !strings.Contains(b.stderr.String(), "set net.ipv6.conf.nic-in.disable_ipv6 = 1 where the network namespace is created") {
					t.Errorf("exit code %d:\n%s", code, b.stderr.String())
				}
			} else {
				b.ready(t)
				exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false, []int{4000})
				b.stop(t)
			}
			sameAs(t, n.Middle, before)
		})
	}
}
