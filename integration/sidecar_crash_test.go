package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/lab"
)

// kill ends a sidecar as nothing can prepare for.
func (b *box) kill(t *testing.T) {
	t.Helper()
	must(t, b.Kill())
	b.wait(t)
}

// putBack runs the program only to put back what a killed one left.
func (p *pod) putBack(t *testing.T, state string) {
	t.Helper()
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", state)
	if code := r.wait(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.stderr.String())
	}
	left, err := filepath.Glob(filepath.Join(state, "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left in the directory of states: %v", left)
	}
	// The TAPs of a process that was killed go in the kernel's own time.
	eventually(t, func() error {
		return p.workload.Do(func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				if l.Type() == "tuntap" {
					err = errors.Join(err, fmt.Errorf("%s is still there", l.Attrs().Name))
				}
			}
			return err
		})
	})
}

// TestSidecarKilled kills it. The pod is cut off, until the next one starts,
// or is asked to put all back.
func TestSidecarKilled(t *testing.T) {
	for _, shape := range podShapes {
		for _, join := range []string{"", "nic = \"eth0\"\njoin = \"bridge\"\n"} {
			t.Run(fmt.Sprintf("%s, %q", shape.name, join), func(t *testing.T) {
				p, state := shape.make(t), t.TempDir()
				configuration := strings.Replace(sidecarRules, "[policy]", join+"[policy]", 1)
				before := snapshot(t, p.workload.Namespace)
				p.startSidecar(t, configuration, state).kill(t)
				if left := addresses(t, p.workload.Namespace, "eth0"); len(left) > 0 {
					t.Errorf("without its filter the nic has %v", left)
				}

				b := p.startSidecar(t, configuration, state)
				moved(t, before, snapshot(t, p.workload.Namespace))
				eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
				b.end(t)
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))

				p.startSidecar(t, configuration, state).kill(t)
				p.putBack(t, state)
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
				p.putBack(t, state) // there is nothing to do
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
			})
		}
	}
}

// TestSidecarKilledAnywhere kills it at moments that spread over its start and
// over its end.
func TestSidecarKilledAnywhere(t *testing.T) {
	const moments = 10
	p, state := bridgedPod(t), t.TempDir()
	before := snapshot(t, p.workload.Namespace)
	start := time.Now()
	b := p.startSidecar(t, sidecarRules, state)
	starting := time.Since(start)
	start = time.Now()
	b.end(t)
	ending := time.Since(start)
	for i := range moments {
		b := &box{process: launch(t, p.workload.Namespace, nil, "sidecar", "-c", configure(t, sidecarRules), "--nic", "eth0", "--state", state)}
		time.Sleep(starting * time.Duration(i+1) / moments) // it is the moment that matters
		b.kill(t)
		p.putBack(t, state)
		sameSnapshot(t, before, snapshot(t, p.workload.Namespace))

		b = p.startSidecar(t, sidecarRules, state)
		b.signal(t, syscall.SIGTERM)
		time.Sleep(ending * time.Duration(i) / moments)
		_ = b.Kill() // it may have ended
		b.wait(t)
		p.putBack(t, state)
		sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		if t.Failed() {
			t.Fatalf("at moment %d of %d", i, moments)
		}
	}
}

// TestSidecarInContainer has no right but CAP_NET_ADMIN, and can't write
// sysctls, as in a container.
func TestSidecarInContainer(t *testing.T) {
	for _, shape := range podShapes {
		t.Run(shape.name, func(t *testing.T) {
			p, state := shape.make(t), t.TempDir()
			before := snapshot(t, p.workload.Namespace)
			container := func() error {
				if err := readOnlySysctls(); err != nil {
					return err
				}
				return only(unix.CAP_NET_ADMIN)
			}
			b := &box{process: launch(t, p.workload.Namespace, container, "sidecar", "-c", configure(t, sidecarRules), "--nic", "eth0", "--state", state)}
			b.ready(t)
			moved(t, before, snapshot(t, p.workload.Namespace))
			eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
			b.end(t)
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
}

// readOnlySysctls does to what the calling thread starts what a container's
// runtime does.
func readOnlySysctls() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target string
		flags          uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE},
		{"/proc/sys", "/proc/sys", unix.MS_BIND},
		{"", "/proc/sys", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	} {
		if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
			return fmt.Errorf("mount %q: %w", m.target, err)
		}
	}
	return nil
}

// only leaves what the calling thread starts some capabilities.
func only(capabilities ...uintptr) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(capabilities, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
			return err
		}
	}
	return nil
}

// TestSidecarLifetimes has a router lend for longer while the sidecar runs, and
// when it is gone.
func TestSidecarLifetimes(t *testing.T) {
	p, state := leasedPod(t), t.TempDir()
	renewed := func(device string, valid int) {
		t.Helper()
		p.lend(uint32(valid))
		eventually(t, func() error {
			if left := lifetime(t, p.workload.Namespace, device); left <= valid-60 || left > valid {
				return fmt.Errorf("%d s are left of %d", left, valid)
			}
			return nil
		})
	}
	b := p.startSidecar(t, sidecarRules, state)
	if left := lifetime(t, p.workload.Namespace, "fw-in"); left <= 3600-60 || left > 3600 {
		t.Errorf("%d s are left of 3600", left)
	}
	renewed("fw-in", 7200)
	b.end(t)
	if left := lifetime(t, p.workload.Namespace, "eth0"); left <= 7200-60 || left > 7200 {
		t.Errorf("back at the nic, %d s are left of 7200", left)
	}
	renewed("eth0", 9000)
	p.startSidecar(t, sidecarRules, state).kill(t)
	p.putBack(t, state)
	if left := lifetime(t, p.workload.Namespace, "eth0"); left <= 9000-60 || left > 9000 {
		t.Errorf("after the kill, %d s are left of 9000", left)
	}
	renewed("eth0", 9900)
}

// TestSidecarMadeAddresses has addresses that the kernel makes of a secret (RFC
// 7217), and temporary ones (RFC 8981). They come back, with no others beside
// them; a router's advertisements renew the former at the TAP, and then at the
// NIC.
func TestSidecarMadeAddresses(t *testing.T) {
	p, state := leasedPod(t), t.TempDir()
	must(t, p.workload.Do(func() error {
		return lab.Sysctl(map[string]string{
			"net/ipv6/conf/eth0/stable_secret": "2001:db8::5ec",
			"net/ipv6/conf/eth0/use_tempaddr":  "2",
		})
	}))
	p.lend(3600)
	var before []netlink.Addr
	var made net.IP // of the secret
	eventually(t, func() error {
		before = globals(t, p.workload.Namespace, "eth0")
		kinds := 0
		for _, a := range before {
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				return fmt.Errorf("%v is on trial", a.IPNet)
			}
			if a.Flags&unix.IFA_F_STABLE_PRIVACY != 0 {
				made = a.IP
			}
			kinds |= a.Flags & (unix.IFA_F_STABLE_PRIVACY | unix.IFA_F_TEMPORARY)
		}
		if kinds != unix.IFA_F_STABLE_PRIVACY|unix.IFA_F_TEMPORARY {
			return fmt.Errorf("only %v", before)
		}
		return nil
	})
	renewed := func(device string, valid int) {
		t.Helper()
		p.lend(uint32(valid))
		eventually(t, func() error {
			now := globals(t, p.workload.Namespace, device)
			// Of temporary ones the kernel may make another.
			kept := slices.DeleteFunc(slices.Clone(now), func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TEMPORARY != 0 })
			if !slices.Equal(hosts(kept), hosts(before)) {
				return fmt.Errorf("%s has %v; want %v", device, hosts(kept), hosts(before))
			}
			for _, a := range now {
				if a.IP.Equal(made) && (a.ValidLft <= valid-60 || a.ValidLft > valid) {
					return fmt.Errorf("%d s are left of %d", a.ValidLft, valid)
				}
			}
			return nil
		})
	}
	back := func() {
		t.Helper()
		if now := hosts(globals(t, p.workload.Namespace, "eth0")); !slices.Equal(now, hosts(before)) {
			t.Errorf("before %v\nafter  %v", hosts(before), now)
		}
	}
	b := p.startSidecar(t, sidecarRules, state)
	renewed("fw-in", 7200)
	b.end(t)
	back()
	p.startSidecar(t, sidecarRules, state).kill(t)
	p.putBack(t, state)
	back()
	renewed("eth0", 9000)
}

// globals are the global IPv6 addresses of a device.
func globals(t *testing.T, ns *lab.Namespace, device string) (list []netlink.Addr) {
	t.Helper()
	must(t, ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		list, err = netlink.AddrList(link, netlink.FAMILY_V6)
		return err
	}))
	return slices.DeleteFunc(list, func(a netlink.Addr) bool { return a.Scope != unix.RT_SCOPE_UNIVERSE })
}

// hosts lists addresses, in order.
func hosts(list []netlink.Addr) (texts []string) {
	for _, a := range list {
		texts = append(texts, a.IP.String())
	}
	slices.Sort(texts)
	return texts
}

// lifetime is that of a device's global IPv6 address, in seconds.
func lifetime(t *testing.T, ns *lab.Namespace, device string) (valid int) {
	t.Helper()
	for _, a := range globals(t, ns, device) {
		valid = a.ValidLft
	}
	return valid
}

// TestSidecarDryRun says what would be done, and does nothing.
func TestSidecarDryRun(t *testing.T) {
	p := routedPod(t)
	before := snapshot(t, p.workload.Namespace)
	r := launch(t, p.workload.Namespace, nil, "sidecar", "-c", configure(t, sidecarRules), "--nic", "eth0", "--dry-run")
	if code := r.wait(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.stderr.String())
	}
	mac := hardwareAddress(t, p.workload.Namespace, "eth0").String()
	said := r.stdout.String()
	for _, want := range []string{
		"ip link set fw-in address " + mac + " mtu 1480\n",
		"ip addr add 10.1.1.5/32 dev fw-in\n",
		"ip neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee nud permanent dev fw-in\n",
		"ip neigh replace proxy 10.1.1.6 dev fw-in\n",
		"# join eth0 to fw-out by a redirect\n",
		"ip route append 169.254.1.1 dev fw-in scope link\n",
		"ip route append default via 169.254.1.1 dev fw-in\n",
		"ip -6 route append default via fe80::ee dev fw-in metric 77\n",
		"ip route del default via 169.254.1.1 dev eth0\n",
		"ip addr del 2001:db8:1::5/128 dev eth0\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no line %q in\n%s", want, said)
		}
	}
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))

	state := t.TempDir()
	p.startSidecar(t, sidecarRules, state).kill(t)
	r = launch(t, p.workload.Namespace, nil, "sidecar", "-c", configure(t, sidecarRules), "--nic", "eth0", "--state", state, "--dry-run")
	if code := r.wait(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.stderr.String())
	}
	if again, told := strings.CutPrefix(r.stdout.String(), "# restore eth0 from the state of a killed sidecar: "); !told || !strings.HasSuffix(again, said) {
		t.Errorf("after a kill it says\n%s", r.stdout.String())
	}
	p.putBack(t, state)
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
}

// TestSidecarErrors has things in the way. It says what, in a line, and leaves
// all as it was.
func TestSidecarErrors(t *testing.T) {
	for _, test := range []struct {
		name, configuration, nic string
		obstruct                 string // commands of ip(8)
		code                     int
		want                     string
		state                    string // its directory, where it matters
	}{
		{"nic is missing", sidecarRules, "eth7", "", 1, `nic "eth7": no such interface`, ""},
		{"loopback", sidecarRules, "lo", "", 1, `nic "lo": is the loopback interface`, ""},
		{"no nic", sidecarRules, "", "", 2, `--nic`, ""},
		{"nic inside", strings.Replace(sidecarRules, "[outside]", "nic = \"eth1\"\n[outside]", 1), "eth0", "", 2, `inside has nic "eth1"`, ""},
		{"other nic outside", strings.Replace(sidecarRules, "[policy]", "nic = \"eth1\"\n[policy]", 1), "eth0", "", 2, `outside has nic "eth1"`, ""},
		{"name of the tap", strings.Replace(sidecarRules, "fw-in", "eth0", 1), "eth0", "", 2, `"eth0" is the nic's name`, ""},
		{"tap exists", sidecarRules, "eth0", "tuntap add fw-out mode tap", 1, `open tap "fw-out": device exists`, ""},
		{"device on it", sidecarRules, "eth0", "link add link eth0 name eth0.5 type macvlan", 1, `carries "eth0.5" (macvlan)`, ""},
		{"in a bridge", sidecarRules, "veth9", "link add br9 type bridge\nlink add veth9 type veth peer name veth8\nlink set veth9 master br9", 1, "belongs to a bridge", ""},
		{"next hop object", sidecarRules, "eth0", "nexthop add id 5 via 10.244.1.1 dev eth0\nroute add 192.0.2.0/26 nhid 5", 1, "ip nexthop", ""},
		{"no addresses", sidecarRules, "eth0", "addr flush dev eth0", 1, `nic "eth0" has no addresses to move`, ""},
		{"state can't be kept", sidecarRules, "eth0", "", 1, "choose with --state a writable directory", "/proc/none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := bridgedPod(t)
			ip(t, p.workload.Namespace, test.obstruct)
			before := snapshot(t, p.workload.Namespace)
			state := t.TempDir()
			if test.state != "" {
				state = test.state
			}
			for _, dryRun := range []bool{false, true} {
				if dryRun && test.state != "" {
					continue // which writes nothing
				}
				r := launch(t, p.workload.Namespace, nil, "sidecar", "-c", configure(t, test.configuration), "--nic", test.nic, "--state", state, fmt.Sprintf("--dry-run=%t", dryRun))
				if code := r.wait(t); code != test.code {
					t.Errorf("exit code %d", code)
				}
				said := r.stderr.String()
				logged := strings.Count(said, " level=WARN ") // flows, too, are kept with the state
				if strings.Count(said, "\n") != 1+logged || !strings.Contains(said, test.want) {
					t.Errorf("dry run %t: said:\n%swithout %q", dryRun, said, test.want)
				}
			}
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
}

// TestTwoSidecars starts a second one, and one that finds the state of another
// namespace.
func TestTwoSidecars(t *testing.T) {
	p, state := routedPod(t), t.TempDir()
	b := p.startSidecar(t, sidecarRules, state)
	for _, arguments := range [][]string{{"-c", configure(t, sidecarRules)}, {"-c", configure(t, sidecarRules), "--dry-run"}, {"--restore"}} {
		r := launch(t, p.workload.Namespace, nil, append([]string{"sidecar", "--nic", "eth0", "--state", state}, arguments...)...)
		if code := r.wait(t); code != 1 || !strings.Contains(r.stderr.String(), "another sidecar uses it") {
			t.Errorf("%v: exit code %d:\n%s", arguments, code, r.stderr.String())
		}
	}
	exchange(t, p.workload, p.peer, false, []int{4000})

	files, err := filepath.Glob(filepath.Join(state, "eth0@*.json"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("states %v", files)
	}
	kept, err := os.ReadFile(files[0])
	must(t, err)
	b.end(t)
	// As after another boot of the system, with the same number.
	must(t, os.WriteFile(files[0], []byte(strings.Replace(string(kept), `"Boot": "`, `"Boot": "other-`, 1)), 0o600))
	before := snapshot(t, p.workload.Namespace)
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", state)
	if code := r.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
}

// TestSidecarCannotBePassedBy has a process without rights send by the NIC
// itself, by a socket from before and by one from after.
func TestSidecarCannotBePassedBy(t *testing.T) {
	p := bridgedPod(t)
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		forbidden := listen(t, p.peer, ipv6, 5999)
		before := listen(t, p.workload, ipv6, 0)
		must(t, bindTo(p.workload, before))
		b := p.startSidecar(t, sidecarRules, t.TempDir())
		defer b.end(t)
		after := listen(t, p.workload, ipv6, 0)
		must(t, bindTo(p.workload, after))
		wire := tap(t, p.peer)
		for _, c := range []*net.UDPConn{before, after} {
			_, _ = c.WriteToUDPAddrPort([]byte("around the filter"), address(forbidden)) // it may fail at once
		}
		exchange(t, p.workload, p.peer, ipv6, []int{4000})
		time.Sleep(100 * time.Millisecond) // nothing tells that nothing comes
		frames, err := wire.Drain()
		must(t, err)
		for _, f := range frames {
			if bytes.Contains(f, []byte("around the filter")) {
				t.Errorf("the peer got % x", f)
			}
		}
	})
}
