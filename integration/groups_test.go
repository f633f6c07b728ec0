package integration_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestMulticast checks that a member of a multicast group receives the datagrams sent to the group, and
// that the other side receives the member's reports.
func TestMulticast(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	for _, test := range []struct {
		name, group string
		report      func(p *packet.Parsed) bool
	}{
		{"IPv4", "239.1.2.3", func(p *packet.Parsed) bool { return p.Kind == packet.IPv4 && p.Protocol == 2 }},
		{"IPv6", "ff12::1234", func(p *packet.Parsed) bool {
			return p.Protocol == packet.ProtocolICMPv6 && p.ICMPType == 143 // RFC 3810 §5.2
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
			group := netip.MustParseAddr(test.group)
			far := tap(t, inside)
			member := join(t, outside, group)
			to := netip.AddrPortFrom(group, address(member).Port())
			sender := listen(t, inside, group.Is6(), 0)
			must(t, sendBy(inside, sender, group.Is6()))
			for _, size := range []int{1, 1473, 4000, 65507} {
				body := packettest.Body(size)
				_, err := sender.WriteToUDPAddrPort(body, to)
				must(t, err)
				arrive(t, member, body)
			}
			awaitFrame(t, far, test.report)
		})
	}
}

// join opens a socket that is a member of a group.
func join(t *testing.T, h *lab.Host, group netip.Addr) (c *net.UDPConn) {
	t.Helper()
	must(t, h.Do(func() error {
		nic, err := net.InterfaceByName(h.NIC)
		if err != nil {
			return err
		}
		c, err = net.ListenMulticastUDP("udp", nic, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, 5353)))
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sendBy makes a socket send to groups through the host's interface.
func sendBy(h *lab.Host, c *net.UDPConn, ipv6 bool) error {
	return h.Do(func() error {
		nic, err := net.InterfaceByName(h.NIC)
		if err != nil {
			return err
		}
		return control(c, func(fd int) error {
			if ipv6 {
				return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, nic.Index)
			}
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(nic.Index)})
		})
	})
}

// control calls f with a socket's descriptor.
func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	return errors.Join(raw.Control(func(fd uintptr) { failure = f(int(fd)) }), failure)
}

// awaitFrame waits for a frame for which as returns true, and ignores others.
func awaitFrame(t *testing.T, s *lab.Tap, as func(p *packet.Parsed) bool) {
	t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for {
		frame, err := s.Receive(deadline)
		must(t, err)
		var p packet.Parsed
		if p.Decode(frame) == verdict.Passed && as(&p) {
			return
		}
	}
}

// TestBroadcast sends datagrams to the broadcast addresses from both sides.
func TestBroadcast(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	for from := range verdict.Side(verdict.Sides) {
		sender := listen(t, b.Hosts[from], false, 0)
		for port, to := range []string{"10.0.0.255", "255.255.255.255"} {
			var c *net.UDPConn
			must(t, b.Hosts[from.Other()].Do(func() (err error) {
				c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5000 + port})
				return err
			}))
			t.Cleanup(func() { _ = c.Close() })
			if to == "255.255.255.255" {
				must(t, bindTo(b.Hosts[from], sender))
			}
			for _, size := range []int{1, 1473, 4000} {
				body := packettest.Body(size)
				_, err := sender.WriteToUDPAddrPort(body, netip.AddrPortFrom(netip.MustParseAddr(to), uint16(5000+port)))
				must(t, err)
				arrive(t, c, body)
			}
		}
	}
}

// bindTo binds a socket to the host's interface, for destinations without a route.
func bindTo(h *lab.Host, c *net.UDPConn) error {
	return control(c, func(fd int) error {
		return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, h.NIC)
	})
}
