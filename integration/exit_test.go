package integration_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestBypass stops a box with on_exit = "bypass". Then the NICs are connected without fragwall, until
// the next instance starts.
func TestBypass(t *testing.T) {
	n := newNetwork(t)
	before := describe(t, n.Middle)
	bypass := configure(t, "on_exit = \"bypass\"\n"+devices) // drops all datagrams
	for range 2 {
		b := &box{Network: n}
		b.process = launch(t, n.Middle, nil, "run", "-c", bypass)
		b.ready(t)
		client, server := listen(t, n.Hosts[verdict.Inside], false, 0), listen(t, n.Hosts[verdict.Outside], false, 0)
		mark := b.counters(t)[verdict.Inside].dropped["policy_default"]
		_, err := client.WriteToUDPAddrPort(packettest.Body(9), address(server))
		must(t, err)
		b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.dropped["policy_default"] > mark })
		b.signal(t, syscall.SIGTERM)
		if code := b.wait(t); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, b.stderr.String())
		}
		exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], true, []int{1, 4000})
	}
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))
	b.ready(t)
	exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], true, []int{4000})
	b.settle(t)
	b.stop(t)
	sameAs(t, n.Middle, before)
}

// TestNICReturns removes a NIC, and adds another one with the same name.
func TestNICReturns(t *testing.T) {
	for name, remove := range map[string]func(t *testing.T, b *box){
		"seen": func(t *testing.T, b *box) {
			must(t, b.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
			b.stderr.await(t, b.process, 0, "nic removed")
			must(t, b.Replug(verdict.Outside))
		},
		// The NIC is renamed before it is removed.
		"renamed": func(t *testing.T, b *box) {
			setLink(t, b.Network, lab.OutsideNIC, netlink.LinkSetDown)
			setLink(t, b.Network, lab.OutsideNIC, func(l netlink.Link) error { return netlink.LinkSetName(l, "nic-old") })
			setLink(t, b.Network, "nic-old", netlink.LinkSetUp)
			must(t, b.Middle.Do(func() error { return remove("nic-old") }))
			b.stderr.await(t, b.process, 0, "nic removed")
			must(t, b.Replug(verdict.Outside))
		},
		// There are more changes than the kernel queues for a slow listener.
		"unseen": func(t *testing.T, b *box) {
			b.signal(t, syscall.SIGSTOP)
			for i := range 1000 {
				setLink(t, b.Network, "lo", func(l netlink.Link) error { return netlink.LinkSetAlias(l, fmt.Sprint(i)) })
			}
			must(t, b.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
			must(t, b.Replug(verdict.Outside))
			b.signal(t, syscall.SIGCONT)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			b := &box{Network: n}
			b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))
			b.ready(t)
			remove(t, b)
			outside := n.Hosts[verdict.Outside]
			must(t, outside.Do(func() error {
				return lab.Sysctl(map[string]string{"net/ipv6/conf/" + lab.HostNIC + "/disable_ipv6": "0"})
			}))
			b.stderr.await(t, b.process, 0, "returned and is joined again")
			exchange(t, n.Hosts[verdict.Inside], outside, false, []int{1, 4000})
			b.stop(t)
			must(t, n.Middle.Do(func() error {
				link, err := netlink.LinkByName(lab.OutsideNIC)
				if err == nil && link.Attrs().Promisc != 0 {
					t.Error("the nic is still promiscuous")
				}
				return err
			}))
		})
	}
}

// TestCrash makes the Go runtime crash, as after a panic or a watchdog timeout. The process must end by
// a signal, so that the service manager does not treat the crash as a regular exit.
func TestCrash(t *testing.T) {
	n := newNetwork(t)
	p := launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))
	p.ready(t)
	p.signal(t, syscall.SIGABRT)
	if code := p.wait(t); code != -1 {
		t.Errorf("exit code %d", code)
	}
	if said := p.stderr.String(); !strings.Contains(said, "SIGABRT") || !strings.Contains(said, "goroutine ") {
		t.Errorf("stderr has no SIGABRT or no goroutines:\n%s", said)
	}
}

// TestLogDiskFull writes the log to a full disk. The box must forward frames and exit normally.
func TestLogDiskFull(t *testing.T) {
	n := newNetwork(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	withLog(t, n, full)
}

// TestLogReaderClosed writes the log to a pipe whose reader has closed it.
func TestLogReaderClosed(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	must(t, r.Close())
	defer w.Close()
	withLog(t, newNetwork(t), w)
}

// TestLogBlocked writes the log to a pipe whose reader does not read.
func TestLogBlocked(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096) // holds only some lines
	must(t, err)
	withLog(t, newNetwork(t), w)
}

// withLog checks that the box forwards, reloads and exits normally while writes to the log fail or
// block.
func withLog(t *testing.T, n *lab.Network, log *os.File) {
	t.Helper()
	config := configure(t, devices+onePort+"[log]\ndrops = \"all\"\n")
	p := launchInto(t, n.Middle, log, "run", "-c", config)
	eventually(t, func() error {
		if p.hasEnded() {
			return fmt.Errorf("ended with %d", p.code)
		}
		_, err := ask(n.Middle, "/readyz")
		return err
	})
	client, server := listen(t, n.Hosts[verdict.Inside], true, 0), listen(t, n.Hosts[verdict.Outside], true, 5300)
	for range 20 {
		_, err := client.WriteToUDPAddrPort(packettest.Body(4000), netip.AddrPortFrom(address(server).Addr(), 5301))
		must(t, err)
	}
	body := packettest.Body(4000)
	_, err := client.WriteToUDPAddrPort(body, address(server))
	must(t, err)
	arrive(t, server, body)
	if metrics := fetch(t, n.Middle, "/metrics"); !strings.Contains(metrics, "fragwall_ready 1\n") {
		t.Error(metrics)
	}
	reload := launch(t, n.Middle, nil, "reload", "-c", config)
	if code := reload.wait(t); code != 0 {
		t.Errorf("reload: exit code %d:\n%s", code, reload.stderr.String())
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
