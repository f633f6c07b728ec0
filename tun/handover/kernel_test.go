package handover

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
	"fragwall/tun/tap"
)

// Names of the devices in the kernel's namespace.
const (
	kernelNIC = "eth0"
	kernelTAP = "fw-in"
)

// kernelCommands configure the NIC before the move, as arguments of ip(8).
var kernelCommands = []string{
	"addr add 192.0.2.5/24 dev eth0",
	"addr add 192.0.2.7/24 dev eth0",
	"addr add 203.0.113.1 peer 203.0.113.2/32 dev eth0",
	"addr add 2001:db8::5/64 dev eth0 nodad",
	"addr add 2001:db8:1::5/64 dev eth0 nodad valid_lft 7200 preferred_lft 3600",
	"route add default via 192.0.2.1 dev eth0",
	"route add 198.51.100.0/24 via 192.0.2.2 dev eth0 table 100 metric 50 mtu 1400",
	"route add blackhole 10.9.0.0/16",
	"-6 route add default via 2001:db8::1 dev eth0 metric 20",
	"-6 route add 2001:db8:9::/48 via fe80::9 dev eth0 onlink",
	"neigh add 192.0.2.1 lladdr 02:00:00:00:00:aa dev eth0 nud permanent",
	"neigh add 2001:db8::1 lladdr 02:00:00:00:00:aa dev eth0 nud stale",
	"neigh add proxy 2001:db8::77 dev eth0",
}

// ip runs ip(8) in the calling thread's namespace.
func ip(arguments string) (string, error) {
	out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ip %s: %w: %s", arguments, err, out)
	}
	return string(out), nil
}

// deviceWords returns what ip(8) shows for a device, without its name and without values that
// change with time.
func deviceWords(device string) (string, error) {
	var all strings.Builder
	for _, list := range []string{
		"-o addr show dev %s scope global", "-4 route show table all dev %s", "-6 route show table all dev %s",
		"neigh show dev %s nud all", "neigh show proxy dev %s",
	} {
		out, err := ip(fmt.Sprintf(list, device))
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			words := strings.Fields(strings.ReplaceAll(line, device, "DEVICE"))
			// The kernel's own routes appear and disappear with addresses, sometimes later.
			if strings.Contains(line, "table local") || strings.Contains(line, "NOARP") || strings.HasPrefix(line, "fe80::") {
				continue
			}
			if strings.HasSuffix(words[0], ":") { // the index, which differs per device
				words = words[1:]
			}
			text := strings.Join(words, " ")
			for _, changing := range []string{"valid_lft", "expires"} {
				text, _, _ = strings.Cut(text, " "+changing)
			}
			fmt.Fprintln(&all, text)
		}
	}
	return all.String(), nil
}

// kernelSpace returns a namespace in which [ip] can run.
func kernelSpace(t *testing.T) *lab.Namespace {
	t.Helper()
	_, err := exec.LookPath("ip")
	lanetest.Require(t, err)
	return lanetest.Namespace(t)
}

// inKernel runs f in a namespace with a configured NIC and a TAP.
func inKernel(t *testing.T, f func() error) {
	n := kernelSpace(t)
	lanetest.OpenPort(t, n, tap.Open, kernelTAP, tun.Config{MTU: 1500, Queues: 1})
	lanetest.Do(t, n, func() error {
		for _, command := range append([]string{"link add eth0 type veth peer host0", "link set lo up", "link set host0 up", "link set eth0 up"}, kernelCommands...) {
			if _, err := ip(command); err != nil {
				return err
			}
		}
		return f()
	})
}

// TestKernelHandsOver moves everything to a TAP and back in a kernel, and checks it with ip(8).
func TestKernelHandsOver(t *testing.T) {
	inKernel(t, func() error {
		before, err := deviceWords(kernelNIC)
		if err != nil {
			return err
		}
		same := func(step, device string) {
			if got, err := deviceWords(device); err != nil || got != before {
				t.Errorf("%s: %v, %s has\n%s\nwant\n%s", step, err, device, got, before)
			}
		}
		s, err := Read(kernelNIC)
		if err != nil {
			return err
		}
		if _, err := s.Move(kernelTAP, nothing); err != nil {
			return err
		}
		if !s.Moved() {
			t.Error("Moved is false after Move")
		}
		same("moved", kernelTAP)
		if name, err := s.Device(); name != kernelNIC || err != nil {
			t.Errorf("the NIC is %q, %v", name, err)
		}
		if _, err := ip("addr add 192.0.2.99/24 dev eth0"); err != nil {
			return err
		}
		if adopted, err := s.Adopt(kernelTAP); err != nil || len(adopted) != 1 {
			t.Errorf("adopted %q, %v", adopted, err)
		}
		if _, err := ip("addr del 192.0.2.99/24 dev " + kernelTAP); err != nil {
			return err
		}
		if err := s.Refresh(kernelTAP); err != nil {
			return err
		}
		if err := s.Return(kernelTAP, nothing); err != nil {
			return err
		}
		same("returned", kernelNIC)
		return nil
	})
}

// TestKernelRefuses checks NICs whose configuration cannot be moved.
func TestKernelRefuses(t *testing.T) {
	lanetest.Do(t, kernelSpace(t), func() error {
		for _, command := range []string{
			"link add br0 type bridge", "link add port0 type veth peer port1", "link set port0 master br0",
		} {
			if _, err := ip(command); err != nil {
				return err
			}
		}
		for nic, want := range map[string]string{
			"lo":        `nic "lo": is the loopback interface`,
			"port0":     `nic "port0": belongs to a bridge or bond, which has the addresses: name the bridge or bond`,
			"not-there": `nic "not-there": no such interface`,
		} {
			if _, err := Read(nic); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		return nil
	})
}

// TestKernelReplaces moves the state to another NIC.
func TestKernelReplaces(t *testing.T) {
	inKernel(t, func() error {
		s, err := Read(kernelNIC)
		if err != nil {
			return err
		}
		if _, err := s.Move(kernelTAP, nothing); err != nil {
			return err
		}
		for _, command := range []string{"link del eth0", "link add eth0 address 02:00:00:00:00:77 type veth peer host0", "link set host0 up", "link set eth0 up"} {
			if _, err := ip(command); err != nil {
				return err
			}
		}
		if err := s.Replace(kernelNIC, kernelTAP); err != nil {
			return err
		}
		link, err := netlink.LinkByName(kernelTAP)
		if err != nil {
			return err
		}
		if mac := link.Attrs().HardwareAddr.String(); mac != "02:00:00:00:00:77" {
			t.Errorf("the TAP has the MAC %s", mac)
		}
		before, err := deviceWords(kernelTAP)
		if err != nil {
			return err
		}
		if err := s.Return(kernelTAP, nothing); err != nil {
			return err
		}
		if got, err := deviceWords(kernelNIC); err != nil || got != before {
			t.Errorf("%v: the NIC has\n%s\nwant\n%s", err, got, before)
		}
		return nil
	})
}

// TestKernelAdoptsRenewal renews addresses by the NIC's name, as a DHCP client does: the TAP's
// addresses get the same lifetimes, and no route leads through the NIC.
func TestKernelAdoptsRenewal(t *testing.T) {
	inKernel(t, func() error {
		addresses := []string{"192.0.2.77/24", "2001:db8:77::1/64", "2001:db8:78::1/64"}
		give := func(seconds int) error {
			for _, prefix := range addresses {
				command := fmt.Sprintf("addr replace %s dev %s valid_lft %d preferred_lft %d", prefix, kernelNIC, seconds, seconds)
				if strings.Contains(prefix, "78") {
					command += " nodad"
				}
				if _, err := ip(command); err != nil {
					return err
				}
			}
			return nil
		}
		if err := give(1000); err != nil {
			return err
		}
		s, err := Read(kernelNIC)
		if err != nil {
			return err
		}
		if _, err := s.Move(kernelTAP, nothing); err != nil {
			return err
		}
		if err := give(5000); err != nil {
			return err
		}
		if adopted, err := s.Adopt(kernelTAP); err != nil || len(adopted) != len(addresses) {
			t.Errorf("adopted %q, %v", adopted, err)
		}
		for _, prefix := range addresses {
			out, err := ip("-o addr show dev " + kernelTAP + " to " + prefix)
			if err != nil || !strings.Contains(out, "valid_lft 5000sec") && !strings.Contains(out, "valid_lft 499") {
				t.Errorf("%s: %v: %s", prefix, err, out)
			}
		}
		for _, family := range []string{"-4", "-6"} {
			if out, err := ip(family + " route show dev " + kernelNIC); err != nil || out != "" {
				t.Errorf("the nic has %s, %v", out, err)
			}
		}
		return nil
	})
}
