package integration_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// rejecting accepts new flows from the inside, except to one port, and rejects everything else.
const rejecting = `
[policy]
default = "reject"
stateful = true
[[rule]]
name = "closed"
action = "reject"
protocol = ["tcp", "udp"]
dst_port = 5301
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// TestStatefulBetweenKernels opens connections, sends fragmented datagrams, and pings from the inside.
// A connection from the outside must be rejected.
func TestStatefulBetweenKernels(t *testing.T) {
	b := start(t, newNetwork(t), rejecting)
	inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		bulk(t, inside, outside, ipv6, 1<<20)
		exchange(t, inside, outside, ipv6, []int{1, 4000, 60000})
		ping(t, inside, outside.Addr(ipv6), 4000)
		if c, err := outside.DialTCP(netip.AddrPortFrom(inside.Addr(ipv6), 22), waitTimeout); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("from outside: %v, %v", c, err)
		}
	})
}

// TestRejectBetweenKernels checks that the hosts' kernels accept the replies to rejected datagrams: a
// connection is refused at once, and a UDP socket gets an error, for whole packets and for fragments.
func TestRejectBetweenKernels(t *testing.T) {
	b := start(t, newNetwork(t), rejecting)
	inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		closed := netip.AddrPortFrom(outside.Addr(ipv6), 5301)
		if c, err := inside.DialTCP(closed, waitTimeout); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, %v", c, err)
		}
		prohibited := syscall.EHOSTUNREACH // net/ipv4/icmp.c, icmp_err_convert
		if ipv6 {
			prohibited = syscall.EACCES // net/ipv6/icmp.c, tab_unreach
		}
		for _, size := range []int{100, 4000} {
			must(t, inside.Do(func() error {
				c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(closed))
				if err != nil {
					return err
				}
				defer c.Close()
				if _, err := c.Write(packettest.Body(size)); err != nil {
					return err
				}
				if err := c.SetReadDeadline(time.Now().Add(waitTimeout)); err != nil {
					return err
				}
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, prohibited) {
					t.Errorf("%d bytes: %v, want %v", size, err, prohibited)
				}
				return nil
			}))
		}
	})
}

// TestReloadBetweenKernels reloads the rules of a running box by SIGHUP, from valid files and from an
// invalid one.
func TestReloadBetweenKernels(t *testing.T) {
	b := start(t, newNetwork(t), onePort)
	inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
	client, server := listen(t, inside, false, 0), listen(t, outside, false, 5300)
	ask := func() {
		t.Helper()
		_, err := client.WriteToUDPAddrPort(packettest.Body(4000), address(server))
		must(t, err)
	}
	ask()
	arrive(t, server, packettest.Body(4000))

	reload := func(text, outcome string) {
		t.Helper()
		must(t, os.WriteFile(b.file, []byte(devices+text), 0o600))
		mark := len(b.stderr.String())
		b.signal(t, syscall.SIGHUP)
		b.stderr.await(t, b.process, mark, outcome)
	}
	reload("[policy]\ndefault = \"drop\"\n", "msg=reloaded")
	ask()
	b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.dropped["policy_default"] >= 3 })
	reload("[policy]\ndefault = \"acept\"\n", `did you mean`)
	ask()
	b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.dropped["policy_default"] >= 6 })
	reload(acceptAll, "msg=reloaded")
	ask()
	arrive(t, server, packettest.Body(4000))
}
