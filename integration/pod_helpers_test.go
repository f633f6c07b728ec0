package integration_test

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/packet/packettest"
	"fragwall/tun/lab"
)

// pod is a network namespace with a workload, as a container has it, and a peer of the workload.
type pod struct {
	workload, peer *lab.Host
	// advertise extends the lifetime of the pod's IPv6 address to valid seconds. It is nil if the
	// kernel does not manage the lifetime.
	advertise func(valid uint32)
}

// podShapes lists ways to connect a pod to the network.
var podShapes = []struct {
	name string
	make func(t *testing.T) *pod
}{
	{"routed veth, as Calico", routedPod},
	{"bridge, as Flannel", bridgedPod},
	{"SLAAC and DHCP", leasedPod},
	{"SLAAC in a program", managedPod},
}

// routedPod has host addresses (/32 and /128) and reaches its gateway by a route of scope link.
func routedPod(t *testing.T) *pod {
	p := newPod(t, "10.1.1.5", "2001:db8:1::5", "10.9.9.9", "2001:db8:9::9")
	must(t, lab.Cable(p.workload.Namespace, "eth0", p.peer.Namespace, "cali0"))
	ip(t, p.peer.Namespace, `
		link set lo up
		link set cali0 up mtu 1480 address ee:ee:ee:ee:ee:ee
		addr add 10.9.9.9/32 dev lo
		addr add 169.254.1.1/32 dev cali0
		route add 10.1.1.5/32 dev cali0
		addr add 2001:db8:9::9/128 dev lo nodad
		addr add fe80::ee/64 dev cali0 nodad
		route add 2001:db8:1::5/128 dev cali0`)
	ip(t, p.workload.Namespace, `
		link set lo up
		link set eth0 up mtu 1480
		addr add 10.1.1.5/32 dev eth0
		route add 169.254.1.1 dev eth0 scope link
		route add default via 169.254.1.1 dev eth0
		addr add 2001:db8:1::5/128 dev eth0
		route add default via fe80::ee dev eth0 metric 77
		neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0
		neigh add fe80::aa lladdr 02:00:00:00:00:aa dev eth0 nud noarp
		neigh add proxy 10.1.1.6 dev eth0`)
	return p.settle(t)
}

// bridgedPod is in the same subnet as its peer. It has addresses, routes, rules and neighbours of
// many kinds.
func bridgedPod(t *testing.T) *pod {
	p := newPod(t, "10.244.1.5", "fd00:244:1::5", "10.244.1.6", "fd00:244:1::6")
	node, err := lab.NewNamespace("node")
	must(t, err)
	t.Cleanup(func() { _ = node.Close() })
	must(t, lab.Cable(p.workload.Namespace, "eth0", node, "veth1"))
	must(t, lab.Cable(p.peer.Namespace, "eth0", node, "veth2"))
	ip(t, node, `
		link add cni0 type bridge
		link set veth1 master cni0 up
		link set veth2 master cni0 up
		link set cni0 up
		addr add 10.244.1.1/24 dev cni0
		addr add fd00:244:1::1/64 dev cni0 nodad`)
	ip(t, p.peer.Namespace, `
		link set lo up
		link set eth0 up
		addr add 10.244.1.6/24 dev eth0
		addr add fd00:244:1::6/64 dev eth0 nodad`)
	ip(t, p.workload.Namespace, `
		link set lo up
		link set eth0 up
		addr add 10.244.1.5/24 brd + dev eth0
		addr add 10.244.1.7/24 dev eth0 label eth0:1
		addr add 10.244.2.5/24 dev eth0 noprefixroute metric 300
		addr add 192.0.2.9 peer 192.0.2.10/32 dev eth0 scope link
		addr add fd00:244:1::5/64 dev eth0 nodad
		addr add fd00:244:1::7/64 dev eth0 metric 500
		addr add fd00:244:2::5/64 dev eth0 noprefixroute
		route del 192.0.2.10 dev eth0
		route add default via 10.244.1.1 dev eth0 src 10.244.1.5
		route append default via 10.244.1.6 dev eth0
		route add default via 10.244.1.1 dev eth0 metric 100 mtu 1400 advmss 1300 proto static
		route add 10.64.0.0/10 via 10.244.1.1 dev eth0 table 100
		route add 10.64.0.0/10 tos 0x10 via 10.244.1.1 dev eth0 table 100
		route add 198.51.100.0/24 via 203.0.113.1 dev eth0 onlink
		route add 203.0.113.0/24 nexthop via 10.244.1.1 dev eth0 weight 2 nexthop dev lo nexthop via 10.244.1.6 dev eth0
		route add blackhole 192.0.2.128/25
		route add local 192.0.2.64/26 dev eth0
		route add 172.16.0.0/12 via inet6 fe80::1 dev eth0
		-6 route add default via fd00:244:1::1 dev eth0 src fd00:244:1::5
		-6 route add 2001:db8:5::/48 via fe80::1 dev eth0 metric 12 expires 3600 table 100
		-6 route add 2001:db8:6::/48 nexthop via fe80::1 dev eth0 weight 3 nexthop via fe80::2 dev eth0
		-6 route add unreachable 2001:db8:7::/48
		rule add from 10.244.1.5 table 100 priority 77
		-6 rule add from fd00:244:1::5 table 100 priority 78
		neigh add 10.244.1.99 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
		neigh add fd00:244:1::99 lladdr 02:00:00:00:00:01 dev eth0 nud stale router`)
	return p.settle(t)
}

// leasedPod has addresses with a lifetime: an IPv6 address from router advertisements, and an IPv4
// address as a DHCP client sets it. It reaches the IPv6 address of its peer through the router.
func leasedPod(t *testing.T) *pod {
	p := newPod(t, "192.0.2.5", "", "192.0.2.1", "2001:db8:9::9")
	must(t, lab.Cable(p.workload.Namespace, "eth0", p.peer.Namespace, "eth0"))
	ip(t, p.peer.Namespace, `
		link set lo up
		link set eth0 up
		addr add 192.0.2.1/24 dev eth0
		addr add 2001:db8:3::1/64 dev eth0 nodad
		addr add 2001:db8:9::9/128 dev lo nodad
		addr add fe80::1/64 dev eth0 nodad`)
	ip(t, p.workload.Namespace, `
		link set lo up
		link set eth0 up
		addr add 192.0.2.5/24 brd + dev eth0 valid_lft 3600 preferred_lft 1800
		route add default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.5 metric 1024`)
	router := tap(t, &lab.Host{Namespace: p.peer.Namespace, NIC: "eth0"})
	mac := hardwareAddress(t, p.peer.Namespace, "eth0")
	p.advertise = func(valid uint32) {
		must(t, router.Send(packettest.RouterAdvertisement(mac, netip.MustParsePrefix("2001:db8:3::/64"), valid, valid/2)))
	}
	eventually(t, func() error { // the pod may not listen yet when the first advertisement arrives
		p.advertise(3600)
		for _, a := range addresses(t, p.workload.Namespace, "eth0") {
			if a.Is6() && !a.IsLinkLocalUnicast() {
				p.workload.IPv6 = a
				return nil
			}
		}
		return fmt.Errorf("the pod has no address from the router")
	})
	return p.settle(t)
}

// managedPod is configured as if a program such as systemd-networkd, instead of the kernel, processed
// router advertisements.
func managedPod(t *testing.T) *pod {
	p := leasedPod(t)
	must(t, p.workload.Do(func() error {
		return lab.Sysctl(map[string]string{"net/ipv6/conf/eth0/accept_ra": "0"})
	}))
	ip(t, p.workload.Namespace, `
		-6 route del default dev eth0
		-6 route add default via fe80::1 dev eth0 proto ra metric 1024 expires 1800`)
	p.advertise = nil
	return p.settle(t)
}

// newPod makes the namespaces of the workload and of its peer, which are not connected yet.
func newPod(t *testing.T, workload4, workload6, peer4, peer6 string) *pod {
	t.Helper()
	host := func(name, ipv4, ipv6 string) *lab.Host {
		ns, err := lab.NewNamespace(name)
		must(t, err)
		t.Cleanup(func() { _ = ns.Close() })
		h := &lab.Host{Namespace: ns, NIC: "eth0", IPv4: netip.MustParseAddr(ipv4)}
		if ipv6 != "" {
			h.IPv6 = netip.MustParseAddr(ipv6)
		}
		return h
	}
	p := &pod{workload: host("workload", workload4, workload6), peer: host("peer", peer4, peer6)}
	must(t, p.workload.Do(func() error { // strict reverse path filtering, as on many hosts
		return lab.Sysctl(map[string]string{"net/ipv4/conf/default/rp_filter": "1"})
	}))
	return p
}

// settle waits until the pod and its peer have exchanged packets.
func (p *pod) settle(t *testing.T) *pod {
	t.Helper()
	eventually(t, func() error {
		if text := ip(t, p.workload.Namespace, "addr"); strings.Contains(text, "tentative") {
			return fmt.Errorf("addresses are still tentative:\n%s", text)
		}
		return nil
	})
	for _, ipv6 := range []bool{false, true} {
		ping(t, p.workload, p.peer.Addr(ipv6), 56)
		ping(t, p.peer, p.workload.Addr(ipv6), 56)
	}
	return p
}

// ip runs ip(8) commands, one per line, in a namespace. It returns their output: first that of
// commands without -6, then that of commands with -6.
func ip(t *testing.T, ns *lab.Namespace, commands string, options ...string) string {
	t.Helper()
	var batch, batch6 []string
	for line := range strings.Lines(commands) {
		line = strings.TrimSpace(line)
		if rest, ipv6 := strings.CutPrefix(line, "-6 "); ipv6 {
			batch6 = append(batch6, rest)
		} else {
			batch = append(batch, line)
		}
	}
	return ipBatch(t, ns, batch, options) + ipBatch(t, ns, batch6, append(options, "-6"))
}

// ipBatch runs ip(8) commands as one batch, and returns their output.
func ipBatch(t *testing.T, ns *lab.Namespace, commands, options []string) string {
	t.Helper()
	var out []byte
	must(t, ns.Do(func() (err error) {
		c := exec.Command("ip", append(options, "-batch", "-")...)
		c.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		var stderr bytes.Buffer
		c.Stderr = &stderr
		if out, err = c.Output(); err != nil {
			return fmt.Errorf("ip: %w\n%s%s", err, stderr.String(), strings.Join(commands, "\n"))
		}
		return nil
	}))
	return string(out)
}

// addresses returns the addresses of a NIC.
func addresses(t *testing.T, ns *lab.Namespace, nic string) (list []netip.Addr) {
	t.Helper()
	must(t, ns.Do(func() error {
		link, err := netlink.LinkByName(nic)
		if err != nil {
			return err
		}
		all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range all {
			address, _ := netip.AddrFromSlice(a.IP)
			list = append(list, address.Unmap())
		}
		return err
	}))
	return list
}

func hardwareAddress(t *testing.T, ns *lab.Namespace, nic string) (mac net.HardwareAddr) {
	t.Helper()
	must(t, ns.Do(func() error {
		i, err := net.InterfaceByName(nic)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	}))
	return mac
}

// pinging is a running ping(8) that sends an echo request every 10 ms.
type pinging struct {
	*exec.Cmd
	said  record
	ended chan struct{}
	first int // sequence number of the first request that lost checks
}

// startPings starts ping(8) on a host, and returns when the first replies have arrived.
func startPings(t *testing.T, from *lab.Host, to netip.Addr) *pinging {
	t.Helper()
	p := &pinging{Cmd: exec.Command("ping", "-n", "-i", "0.01", to.String()), ended: make(chan struct{})}
	p.Stdout = &p.said
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		_ = from.Do(func() error { // start ping in the host's namespace
			err := p.Start()
			started <- err
			if err == nil {
				_ = p.Wait() // fails if a reply is missing
			}
			return nil
		})
	}()
	must(t, <-started)
	t.Cleanup(p.stop)
	p.awaitProgress(t)
	return p
}

func (p *pinging) stop() {
	_ = p.Process.Signal(os.Interrupt) // fails if ping has ended
	<-p.ended
}

// answered returns the sequence numbers of the echo requests that were answered.
func (p *pinging) answered() map[int]bool {
	numbers := make(map[int]bool)
	for _, m := range echoNumber.FindAllStringSubmatch(p.said.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		numbers[n] = true
	}
	return numbers
}

var echoNumber = regexp.MustCompile(`bytes from .* icmp_seq=(\d+) `)

// awaitProgress waits for ten more replies.
func (p *pinging) awaitProgress(t *testing.T) {
	t.Helper()
	before := len(p.answered())
	eventually(t, func() error {
		if n := len(p.answered()); n < before+10 {
			return fmt.Errorf("%d replies before, %d now:\n%s", before, n, p.said.String())
		}
		return nil
	})
}

// latest returns the sequence number of the latest answered request.
func (p *pinging) latest() int {
	return slices.Max(slices.Collect(maps.Keys(p.answered())))
}

// count makes lost ignore all requests so far.
func (p *pinging) count() { p.first = p.latest() + 1 }

// lost returns the sequence numbers of the requests without a reply although a later request has one.
// Replies may be late, but they keep their order.
func (p *pinging) lost(t *testing.T) (numbers []int) {
	t.Helper()
	p.awaitProgress(t)
	answered := p.answered()
	for n := p.first; n < slices.Max(slices.Collect(maps.Keys(answered))); n++ {
		if !answered[n] {
			numbers = append(numbers, n)
		}
	}
	return numbers
}
