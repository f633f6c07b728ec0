package integration_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/integration/trunk"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

func familyName(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// eachFamily runs a test for IPv4 and one for IPv6.
func eachFamily(t *testing.T, test func(t *testing.T, ipv6 bool)) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) { test(t, ipv6) })
	}
}

// listen opens a UDP socket on a host until the test ends.
func listen(t *testing.T, h *lab.Host, ipv6 bool, port uint16) *net.UDPConn {
	t.Helper()
	c, err := h.ListenUDP(ipv6, port)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func address(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// arrive waits for a datagram, and compares its payload.
func arrive(t *testing.T, c *net.UDPConn, want []byte) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(waitTimeout)))
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("%d bytes did not arrive: %v", len(want), err)
	}
	if !bytes.Equal(b[:n], want) {
		t.Fatalf("%d bytes arrived, which differ from the %d bytes sent", n, len(want))
	}
}

// exchange sends datagrams of each size in both directions.
func exchange(t *testing.T, a, b *lab.Host, ipv6 bool, sizes []int) {
	t.Helper()
	one, other := listen(t, a, ipv6, 0), listen(t, b, ipv6, 0)
	for _, size := range sizes {
		body := packettest.Body(size)
		_, err := one.WriteToUDPAddrPort(body, address(other))
		must(t, err)
		arrive(t, other, body)
		slices.Reverse(body)
		_, err = other.WriteToUDPAddrPort(body, address(one))
		must(t, err)
		arrive(t, one, body)
	}
}

// sizes returns UDP payload sizes from 0 to the maximum of the address family, including those around
// the limits above which another fragment is needed.
func sizes(ipv6 bool) []int {
	fragment, largest := 1480, 65507 // IPv4 payload per fragment; RFC 768 and RFC 791
	if ipv6 {
		fragment, largest = 1448, 65527
	}
	s := []int{0, 1, 2, 7, 8, 9, 100, 1000, 1452, 1453, 1472, 1473, 9000, 32768, 65506, 65507, largest}
	for _, fragments := range []int{2, 3, 4, 10, 44} {
		border := fragments*fragment - 8
		s = append(s, border-1, border, border+1)
	}
	return s
}

func TestUDP(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		exchange(t, b.Hosts[verdict.Inside], b.Hosts[verdict.Outside], ipv6, sizes(ipv6))
	})
}

func TestPing(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		largest := 65507
		if ipv6 {
			largest = 65527
		}
		for from := range verdict.Side(verdict.Sides) {
			for _, size := range []int{0, 56, 1452, 1453, 1472, 1473, 4000, 20000, largest} {
				ping(t, b.Hosts[from], b.Hosts[from.Other()].Addr(ipv6), size)
			}
		}
	})
}

// ping makes a host ping another once with size bytes.
func ping(t *testing.T, from *lab.Host, to netip.Addr, size int) {
	t.Helper()
	must(t, from.Do(func() error {
		out, err := exec.Command("ping", "-n", "-c", "1", "-W", "20", "-s", strconv.Itoa(size), to.String()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping %s with %d bytes: %w\n%s", to, size, err, out)
		}
		return nil
	}))
}

func TestTCP(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		bulk(t, b.Hosts[verdict.Inside], b.Hosts[verdict.Outside], ipv6, 8<<20)
	})
}

// bulk makes both hosts send at once over one connection, and compares the checksums of the
// data that arrives.
func bulk(t *testing.T, client, server *lab.Host, ipv6 bool, size int) {
	t.Helper()
	listener, err := server.ListenTCP(ipv6, 0)
	must(t, err)
	defer listener.Close()
	deadline := time.Now().Add(2 * waitTimeout)
	must(t, listener.SetDeadline(deadline))
	there, back := random(1, size), random(2, size)
	var g errgroup.Group
	g.Go(func() error {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		return bothWays(c, deadline, back, there)
	})
	g.Go(func() error {
		port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
		c, err := client.DialTCP(netip.AddrPortFrom(server.Addr(ipv6), port), waitTimeout)
		if err != nil {
			return err
		}
		return bothWays(c, deadline, there, back)
	})
	must(t, g.Wait())
}

// bothWays sends data over a connection while it receives and checks other data.
func bothWays(c net.Conn, deadline time.Time, send, receive []byte) error {
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error {
		if _, err := c.Write(send); err != nil {
			return err
		}
		return c.(*net.TCPConn).CloseWrite()
	})
	g.Go(func() error {
		h := sha256.New()
		if _, err := io.Copy(h, c); err != nil {
			return err
		}
		if want := sha256.Sum256(receive); !bytes.Equal(h.Sum(nil), want[:]) {
			return errors.New("received data differs from sent data")
		}
		return nil
	})
	return g.Wait()
}

// random returns bytes that are the same in every run.
func random(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// TestVLANs exchanges traffic between hosts with one VLAN tag and with two.
func TestVLANs(t *testing.T) {
	b := start(t, newNetwork(t), acceptAll)
	var trunks [verdict.Sides]*trunk.Trunk
	for side, h := range b.Hosts {
		trunks[side] = openTrunk(t, h)
	}
	for _, test := range []struct {
		name string
		tags []packet.Tag
	}{
		{"802.1Q", []packet.Tag{{TPID: 0x8100, TCI: 10}}},
		{"802.1ad", []packet.Tag{{TPID: 0x88a8, TCI: 20}}},
		{"802.1Q in 802.1ad", []packet.Tag{{TPID: 0x88a8, TCI: 10}, {TPID: 0x8100, TCI: 30}}},
		{"802.1Q in 802.1Q", []packet.Tag{{TPID: 0x8100, TCI: 10}, {TPID: 0x8100, TCI: 40}}},
	} {
		var hosts [verdict.Sides]*lab.Host
		for side := range hosts {
			v, err := trunks[side].VLAN(test.tags...)
			must(t, err)
			hosts[side] = v
		}
		for _, ipv6 := range []bool{false, true} {
			t.Run(test.name+" "+familyName(ipv6), func(t *testing.T) {
				inside, outside := hosts[verdict.Inside], hosts[verdict.Outside]
				exchange(t, inside, outside, ipv6, []int{1, 1452, 1472, 1473, 4000, 65507})
				ping(t, outside, inside.Addr(ipv6), 20000)
				bulk(t, inside, outside, ipv6, 1<<20)
			})
		}
	}
}

// openTrunk makes a host's interface a trunk until the test ends.
func openTrunk(t *testing.T, h *lab.Host) *trunk.Trunk {
	t.Helper()
	trunk, err := trunk.Open(h)
	must(t, err)
	t.Cleanup(func() { _ = trunk.Close() })
	return trunk
}
