package integration_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/lab"
)

// TestRunErrors starts the program in conditions in which it cannot run. It must print one line that
// says why, exit with 1, and leave the namespace unchanged.
func TestRunErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		obstruct func() error // in the middle namespace
		prepare  func() error // on the thread that starts the program
		want     []string
	}{
		{"tap exists", func() error {
			return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: named("fw-out"), Mode: netlink.TUNTAP_MODE_TAP})
		}, nil, []string{`"fw-out"`, "exists"}},
		{"tap is another device", func() error {
			return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: named("fw-in")})
		}, nil, []string{`"fw-in"`, "exists"}},
		{"bridge exists", func() error {
			return errors.Join(noNetfilter(), netlink.LinkAdd(&netlink.Bridge{LinkAttrs: named("fw-out-br")}))
		}, nil, []string{`"fw-out-br"`, "exists"}},
		{"nic is missing", func() error {
			nic, err := netlink.LinkByName("nic-out")
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetDown(nic), netlink.LinkSetName(nic, "nic-other"))
		}, nil, []string{`"nic-out"`, "no such interface"}},
		{"nic in another bridge", func() error {
			bridge := &netlink.Bridge{LinkAttrs: named("other")}
			if err := errors.Join(noNetfilter(), netlink.LinkAdd(bridge)); err != nil {
				return err
			}
			nic, err := netlink.LinkByName("nic-out")
			if err != nil {
				return err
			}
			return netlink.LinkSetMaster(nic, bridge)
		}, nil, []string{`"nic-out"`, "belongs to a bridge"}},
		{"nic with an address", func() error {
			nic, err := netlink.LinkByName("nic-out")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(nic, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}})
		}, nil, []string{`"nic-out"`, "192.0.2.1/24"}},
		{"no right to make devices", nil, func() error {
			return without(unix.CAP_NET_ADMIN)
		}, []string{`"fw-in"`, "CAP_NET_ADMIN"}},
		{"no driver", nil, func() error {
			return hideTUN(nil)
		}, []string{`"fw-in"`, "/dev/net/tun", "no such file"}},
		{"driver not accessible", nil, func() error {
			return errors.Join(
				hideTUN(func(dir string) error { return os.WriteFile(filepath.Join(dir, "tun"), nil, 0) }),
				without(unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH))
		}, []string{`"fw-in"`, "/dev/net/tun", "permission denied"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			if test.obstruct != nil {
				must(t, n.Middle.Do(test.obstruct))
			}
			before := describe(t, n.Middle)
			expectNone := watch(t, n)
			p := launch(t, n.Middle, test.prepare, "run", "-c", configure(t, devices+bridgeOutside+acceptAll))
			if code := p.wait(t); code != 1 {
				t.Errorf("exit code %d", code)
			}
			said := p.stderr.String()
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "fragwall: ") {
				t.Errorf("stderr is not one line that begins with \"fragwall: \":\n%s", said)
			}
			for _, want := range test.want {
				if !strings.Contains(said, want) {
					t.Errorf("stderr does not contain %q:\n%s", want, said)
				}
			}
			sameAs(t, n.Middle, before)
			expectNone()
		})
	}
}

// TestDevicesInUse starts the program while an instance uses the same devices.
func TestDevicesInUse(t *testing.T) {
	b := start(t, newNetwork(t), bridgeOutside+acceptAll)
	for _, test := range []struct{ configuration, want string }{
		{devices, `"fw-in"`},
		{strings.NewReplacer(`"fw-in"`, `"fw-more"`, `"fw-out"`, `"fw-most"`).Replace(devices), `"nic-in"`},
		{strings.ReplaceAll(strings.ReplaceAll(devices, `"fw-out"`, `"fw-more"`), "tap = \"fw-in\"\nnic = \"nic-in\"", `tap = "fw-another"`), `"fw-out-br"`},
	} {
		before := describe(t, b.Middle)
		p := launch(t, b.Middle, nil, "run", "-c", configure(t, test.configuration+acceptAll))
		if code := p.wait(t); code != 1 {
			t.Errorf("exit code %d", code)
		}
		if said := p.stderr.String(); !strings.Contains(said, test.want) {
			t.Errorf("stderr does not contain %s:\n%s", test.want, said)
		}
		sameAs(t, b.Middle, before)
	}
	exchange(t, b.Hosts[0], b.Hosts[1], false, []int{4000})
}

// TestConfigurationErrors checks the errors about invalid arguments and configurations, and that the
// program then creates nothing.
func TestConfigurationErrors(t *testing.T) {
	n := newNetwork(t)
	before := describe(t, n.Middle)
	wrong := configure(t, devices+"[policy]\ndefault = \"perhaps\"\n[[rule]]\nname = \"x\"\n")
	missing := filepath.Join(t.TempDir(), "no.toml")
	for _, test := range []struct {
		arguments []string
		want      string
	}{
		{[]string{"run", "-c", wrong}, wrong + ":9: "},
		{[]string{"run", "-c", missing}, missing},
		{[]string{"run"}, "-c FILE"},
		{[]string{"run", "-c", wrong, "more"}, `"more"`},
		{[]string{"check", "-c", wrong}, wrong + ":10: "},
	} {
		p := launch(t, n.Middle, nil, test.arguments...)
		if code := p.wait(t); code != 2 {
			t.Errorf("%v: exit code %d", test.arguments, code)
		}
		if said := p.stderr.String(); !strings.Contains(said, test.want) {
			t.Errorf("%v: stderr does not contain %q:\n%s", test.arguments, test.want, said)
		}
	}
	sameAs(t, n.Middle, before)
}

// named returns link attributes with a name.
func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// noNetfilter excludes bridged frames from netfilter, if the kernel has br_netfilter.
func noNetfilter() error {
	for _, family := range []string{"iptables", "ip6tables", "arptables"} {
		err := lab.Sysctl(map[string]string{"net/bridge/bridge-nf-call-" + family: "0"})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// remove removes a device of the calling thread's namespace.
func remove(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// without removes capabilities from processes that the calling thread starts.
func without(capabilities ...uintptr) error {
	for _, c := range capabilities {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// hideTUN hides /dev/net from processes that the calling thread starts, with an empty file system. If
// fill is not nil, it is called with the mount point.
func hideTUN(fill func(dir string) error) error {
	const dir = "/dev/net"
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil || fill == nil {
		return err
	}
	return fill(dir)
}
