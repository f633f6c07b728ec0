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

// kill kills a sidecar with SIGKILL.
func (b *box) kill(t *testing.T) {
	t.Helper()
	must(t, b.Kill())
	b.wait(t)
}

// restore runs the program with --restore after another one was killed. Afterwards, no state and no TAP
// must be left.
func (p *pod) restore(t *testing.T, state string) {
	t.Helper()
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", state)
	if code := r.wait(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.stderr.String())
	}
	left, err := filepath.Glob(filepath.Join(state, "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("files in the state directory: %v", left)
	}
	// The kernel removes the TAPs of a killed process after a delay.
	eventually(t, func() error {
		return p.workload.Do(func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				if l.Type() == "tuntap" {
					err = errors.Join(err, fmt.Errorf("%s still exists", l.Attrs().Name))
				}
			}
			return err
		})
	})
}

// TestSidecarKilled kills sidecars. The pod has no network until the next sidecar starts, or until
// --restore.
func TestSidecarKilled(t *testing.T) {
	for _, shape := range podShapes {
		for _, join := range []string{"", "nic = \"eth0\"\njoin = \"bridge\"\n"} {
			t.Run(fmt.Sprintf("%s, %q", shape.name, join), func(t *testing.T) {
				p, state := shape.make(t), t.TempDir()
				configuration := strings.Replace(sidecarRules, "[policy]", join+"[policy]", 1)
				before := snapshot(t, p.workload.Namespace)
				p.startSidecar(t, configuration, state).kill(t)
				if left := addresses(t, p.workload.Namespace, "eth0"); len(left) > 0 {
					t.Errorf("after the kill the nic has addresses %v", left)
				}

				b := p.startSidecar(t, configuration, state)
				checkMoved(t, before, snapshot(t, p.workload.Namespace))
				eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
				b.end(t)
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))

				p.startSidecar(t, configuration, state).kill(t)
				p.restore(t, state)
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
				p.restore(t, state) // nothing is left to restore
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
			})
		}
	}
}

// TestSidecarKilledDuringStartAndEnd kills sidecars at moments spread over their start and their end.
func TestSidecarKilledDuringStartAndEnd(t *testing.T) {
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
		time.Sleep(starting * time.Duration(i+1) / moments) // the moment of the kill is what the test varies
		b.kill(t)
		p.restore(t, state)
		sameSnapshot(t, before, snapshot(t, p.workload.Namespace))

		b = p.startSidecar(t, sidecarRules, state)
		b.signal(t, syscall.SIGTERM)
		time.Sleep(ending * time.Duration(i) / moments)
		_ = b.Kill() // fails if the process has ended
		b.wait(t)
		p.restore(t, state)
		sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		if t.Failed() {
			t.Fatalf("failed at moment %d of %d", i, moments)
		}
	}
}

// TestSidecarInContainer runs sidecars with only CAP_NET_ADMIN and read-only sysctls, as in a container.
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
			checkMoved(t, before, snapshot(t, p.workload.Namespace))
			eachFamily(t, func(t *testing.T, ipv6 bool) { exchange(t, p.workload, p.peer, ipv6, []int{4000}) })
			b.end(t)
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
}

// readOnlySysctls makes sysctls read-only for processes that the calling thread starts, as a container
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

// only limits processes that the calling thread starts to some capabilities.
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

// TestSidecarLifetimes checks that a router's advertisements extend the lifetime of the pod's address:
// on the TAP while a sidecar runs, and on the NIC after it has ended or was killed.
func TestSidecarLifetimes(t *testing.T) {
	p, state := leasedPod(t), t.TempDir()
	renewed := func(device string, valid int) {
		t.Helper()
		p.advertise(uint32(valid))
		eventually(t, func() error {
			if left := lifetime(t, p.workload.Namespace, device); left <= valid-60 || left > valid {
				return fmt.Errorf("the lifetime is %d s, want about %d s", left, valid)
			}
			return nil
		})
	}
	b := p.startSidecar(t, sidecarRules, state)
	if left := lifetime(t, p.workload.Namespace, "fw-in"); left <= 3600-60 || left > 3600 {
		t.Errorf("on the tap, the lifetime is %d s, want about 3600 s", left)
	}
	renewed("fw-in", 7200)
	b.end(t)
	if left := lifetime(t, p.workload.Namespace, "eth0"); left <= 7200-60 || left > 7200 {
		t.Errorf("restored on the nic, the lifetime is %d s, want about 7200 s", left)
	}
	renewed("eth0", 9000)
	p.startSidecar(t, sidecarRules, state).kill(t)
	p.restore(t, state)
	if left := lifetime(t, p.workload.Namespace, "eth0"); left <= 9000-60 || left > 9000 {
		t.Errorf("after the kill, the lifetime is %d s, want about 9000 s", left)
	}
	renewed("eth0", 9900)
}

// TestSidecarGeneratedAddresses uses stable opaque addresses, which the kernel generates from a secret (RFC
// 7217), and temporary addresses (RFC 8981). The NIC must get them back, and no other ones. A router's
// advertisements must extend the lifetime of the stable ones on the TAP, and later on the NIC.
func TestSidecarGeneratedAddresses(t *testing.T) {
	p, state := leasedPod(t), t.TempDir()
	must(t, p.workload.Do(func() error {
		return lab.Sysctl(map[string]string{
			"net/ipv6/conf/eth0/stable_secret": "2001:db8::5ec",
			"net/ipv6/conf/eth0/use_tempaddr":  "2",
		})
	}))
	p.advertise(3600)
	var before []netlink.Addr
	var made net.IP // generated from the secret
	eventually(t, func() error {
		before = globals(t, p.workload.Namespace, "eth0")
		kinds := 0
		for _, a := range before {
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				return fmt.Errorf("%v is tentative", a.IPNet)
			}
			if a.Flags&unix.IFA_F_STABLE_PRIVACY != 0 {
				made = a.IP
			}
			kinds |= a.Flags & (unix.IFA_F_STABLE_PRIVACY | unix.IFA_F_TEMPORARY)
		}
		if kinds != unix.IFA_F_STABLE_PRIVACY|unix.IFA_F_TEMPORARY {
			return fmt.Errorf("not both kinds of addresses: %v", before)
		}
		return nil
	})
	renewed := func(device string, valid int) {
		t.Helper()
		p.advertise(uint32(valid))
		eventually(t, func() error {
			now := globals(t, p.workload.Namespace, device)
			// The kernel may generate another temporary address.
			kept := slices.DeleteFunc(slices.Clone(now), func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TEMPORARY != 0 })
			if !slices.Equal(hosts(kept), hosts(before)) {
				return fmt.Errorf("%s has %v; want %v", device, hosts(kept), hosts(before))
			}
			for _, a := range now {
				if a.IP.Equal(made) && (a.ValidLft <= valid-60 || a.ValidLft > valid) {
					return fmt.Errorf("the lifetime of %v is %d s, want about %d s", a.IP, a.ValidLft, valid)
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
	p.restore(t, state)
	back()
	renewed("eth0", 9000)
}

// globals returns the global IPv6 addresses of a device.
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

// hosts returns addresses as sorted strings.
func hosts(list []netlink.Addr) (texts []string) {
	for _, a := range list {
		texts = append(texts, a.IP.String())
	}
	slices.Sort(texts)
	return texts
}

// lifetime returns the valid lifetime of a device's global IPv6 address in seconds.
func lifetime(t *testing.T, ns *lab.Namespace, device string) (valid int) {
	t.Helper()
	for _, a := range globals(t, ns, device) {
		valid = a.ValidLft
	}
	return valid
}

// TestSidecarDryRun checks that --dry-run prints the changes and does not make them.
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
		t.Errorf("output after a kill:\n%s", r.stdout.String())
	}
	p.restore(t, state)
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
}

// TestSidecarErrors starts sidecars in conditions in which they cannot run. They must print one line that
// says why, and leave the namespace unchanged.
func TestSidecarErrors(t *testing.T) {
	for _, test := range []struct {
		name, configuration, nic string
		obstruct                 string // commands of ip(8)
		code                     int
		want                     string
		state                    string // state directory; "" for a temporary one
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
		{"state directory not writable", sidecarRules, "eth0", "", 1, "choose with --state a writable directory", "/proc/none"},
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
					continue // a dry run does not write the state
				}
				r := launch(t, p.workload.Namespace, nil, "sidecar", "-c", configure(t, test.configuration), "--nic", test.nic, "--state", state, fmt.Sprintf("--dry-run=%t", dryRun))
				if code := r.wait(t); code != test.code {
					t.Errorf("exit code %d", code)
				}
				said := r.stderr.String()
				logged := strings.Count(said, " level=WARN ") // flows cannot be stored in the state directory either
				if strings.Count(said, "\n") != 1+logged || !strings.Contains(said, test.want) {
					t.Errorf("dry run %t: stderr is not one line with %q:\n%s", dryRun, test.want, said)
				}
			}
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
}

// TestTwoSidecars starts a second sidecar for the same NIC, which must be refused. Then it runs --restore
// with a state from before a reboot, which must not be applied.
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
	// The state is from another boot of the system; the namespace's number is the same.
	must(t, os.WriteFile(files[0], []byte(strings.Replace(string(kept), `"Boot": "`, `"Boot": "other-`, 1)), 0o600))
	before := snapshot(t, p.workload.Namespace)
	r := launch(t, p.workload.Namespace, nil, "sidecar", "--restore", "--nic", "eth0", "--state", state)
	if code := r.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
}

// TestSidecarNoBypass sends datagrams from the workload directly through the NIC, from sockets
// that were bound to it before and after the sidecar started. They must not arrive.
func TestSidecarNoBypass(t *testing.T) {
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
			_, _ = c.WriteToUDPAddrPort([]byte("around the filter"), address(forbidden)) // may fail
		}
		exchange(t, p.workload, p.peer, ipv6, []int{4000})
		time.Sleep(100 * time.Millisecond) // no event shows that no frame arrives
		frames, err := wire.Drain()
		must(t, err)
		for _, f := range frames {
			if bytes.Contains(f, []byte("around the filter")) {
				t.Errorf("a frame bypassed the filter: % x", f)
			}
		}
	})
}
