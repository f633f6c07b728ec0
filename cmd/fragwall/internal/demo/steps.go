package demo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/cmd/fragwall/internal/report"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// Ports in the policy of the demonstration.
const (
	servicePort   = 5300
	forbiddenPort = 5999
	webPort       = 8080
)

// stepTimeout is the time limit for a reply that should arrive at once.
const stepTimeout = 5 * time.Second

// requestSize is the UDP payload of a request in bytes. With headers, it takes three fragments
// on Ethernet, in IPv4 and in IPv6.
const (
	requestSize      = 4000
	requestFragments = 3
)

// demo is the running box, its hosts and the output.
type demo struct {
	network *lab.Network
	box     *box.Box
	out     io.Writer
}

// step is a claim and the function that checks it.
type step struct {
	claim string
	try   func(ipv6 bool) (detail string, err error)
}

// run checks each claim and prints the counters.
func (d *demo) run() error {
	steps := []step{
		{"a fragmented request to port 5300 passes, and so does the reply", d.accepted},
		{"the same request to port 5999 is dropped with all its fragments", d.denied},
		{"fragments in reverse order pass", d.reversed},
		{"a TCP transfer passes", d.transfer},
	}
	failed := 0
	for _, s := range steps {
		for _, family := range []struct {
			name string
			ipv6 bool
		}{{"IPv4", false}, {"IPv6", true}} {
			detail, err := s.try(family.ipv6)
			if err != nil {
				failed++
			}
			printStep(d.out, family.name+": "+s.claim, detail, err)
		}
	}
	fmt.Fprintln(d.out, "\nCounters:")
	if err := report.Of(d.box.Bump).WriteCounters(d.out); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("demo: %d of %d exchanges did not have the expected result", failed, 2*len(steps))
	}
	return nil
}

// accepted sends a request larger than the MTU and a reply of the same size.
func (d *demo) accepted(ipv6 bool) (string, error) {
	client, server, err := d.sockets(ipv6, servicePort)
	if err != nil {
		return "", err
	}
	defer client.Close()
	defer server.Close()
	request := body(requestSize)
	reply := slices.Clone(request)
	slices.Reverse(reply)
	if _, err := client.WriteToUDPAddrPort(request, addrPort(server)); err != nil {
		return "", err
	}
	if err := expect(server, request); err != nil {
		return "", fmt.Errorf("the request: %w", err)
	}
	if _, err := server.WriteToUDPAddrPort(reply, addrPort(client)); err != nil {
		return "", err
	}
	if err := expect(client, reply); err != nil {
		return "", fmt.Errorf("the reply: %w", err)
	}
	return fmt.Sprintf("request of %d bytes in %d fragments and reply of %d bytes arrived unchanged",
		len(request), requestFragments, len(reply)), nil
}

// denied sends a request that the policy drops, and waits until the box has dropped it. It then
// checks that none of its fragments has reached the other host.
func (d *demo) denied(ipv6 bool) (string, error) {
	client, server, err := d.sockets(ipv6, forbiddenPort)
	if err != nil {
		return "", err
	}
	defer client.Close()
	defer server.Close()
	tap, err := d.network.Hosts[verdict.Outside].OpenTap(lab.HostNIC)
	if err != nil {
		return "", err
	}
	defer tap.Close()

	before := d.box.Counters(verdict.Inside)
	if _, err := client.WriteToUDPAddrPort(body(requestSize), addrPort(server)); err != nil {
		return "", err
	}
	deadline := time.Now().Add(stepTimeout)
	for {
		s := d.box.Counters(verdict.Inside)
		dropped := s.Dropped[verdict.PolicyRule] - before.Dropped[verdict.PolicyRule]
		if dropped == requestFragments {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("the rules dropped %s, want %d", terminal.Count(dropped, "fragment"), requestFragments)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := d.accepted(ipv6); err != nil { // arrives after any leaked fragment
		return "", err
	}
	leaked, err := countFragments(tap, addrPort(client), requestFragments)
	if err != nil {
		return "", err
	}
	if leaked > 0 {
		return "", fmt.Errorf("%s reached the outside host", terminal.Count(leaked, "fragment"))
	}
	return fmt.Sprintf("rule \"forbidden\" dropped %d fragments; none reached the outside host", requestFragments), nil
}

// countFragments returns the number of fragments that a tap received from an address, minus the
// allowed ones of the datagram that passed, which arrive last.
func countFragments(tap *lab.Tap, from netip.AddrPort, allowed int) (int, error) {
	n := 0
	for {
		frame, err := tap.Receive(time.Now().Add(100 * time.Millisecond))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if n < allowed {
				return 0, fmt.Errorf("%s reached the outside host, want %d", terminal.Count(n, "fragment"), allowed)
			}
			return n - allowed, nil
		}
		if err != nil {
			return 0, err
		}
		var p packet.Parsed
		if p.Decode(frame) == verdict.Passed && p.Src == from.Addr() && p.Fragment.Present {
			n++
		}
	}
}

// reversed sends the fragments of a datagram in reverse order.
func (d *demo) reversed(ipv6 bool) (string, error) {
	client, server, err := d.sockets(ipv6, servicePort)
	if err != nil {
		return "", err
	}
	defer client.Close()
	defer server.Close()
	inside, outside := d.network.Hosts[verdict.Inside], d.network.Hosts[verdict.Outside]
	tap, err := inside.OpenTap(lab.HostNIC)
	if err != nil {
		return "", err
	}
	defer tap.Close()
	request := body(requestSize)
	frames := lab.Between(inside, outside, fragmentsOf(addrPort(client), addrPort(server), 4711, request, 1448)...)
	slices.Reverse(frames)
	if err := tap.Send(frames...); err != nil {
		return "", err
	}
	if err := expect(server, request); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d fragments, the one with the ports last, arrived as one datagram of %d bytes", len(frames), len(request)), nil
}

// transfer sends data over TCP and compares it with what arrives.
func (d *demo) transfer(ipv6 bool) (string, error) {
	inside, outside := d.network.Hosts[verdict.Inside], d.network.Hosts[verdict.Outside]
	listener, err := outside.ListenTCP(ipv6, webPort)
	if err != nil {
		return "", err
	}
	defer listener.Close()
	deadline := time.Now().Add(2 * stepTimeout)
	if err := listener.SetDeadline(deadline); err != nil {
		return "", err
	}
	sum := make(chan error, 1)
	content := bytes.Repeat(body(1<<16), 256)
	go func() { sum <- receive(listener, deadline, sha256.Sum256(content)) }()

	start := time.Now()
	c, err := inside.DialTCP(netip.AddrPortFrom(outside.Addr(ipv6), webPort), stepTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := c.Write(content); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	if err := <-sum; err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB in %s, checksums match", len(content)>>20, time.Since(start).Round(time.Millisecond)), nil
}

// receive accepts one connection and compares the checksum of the received data.
func receive(l *net.TCPListener, deadline time.Time, want [sha256.Size]byte) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return errors.New("received data differs from sent data")
	}
	return nil
}

// sockets opens a client socket inside and a server socket outside.
func (d *demo) sockets(ipv6 bool, port uint16) (client, server *net.UDPConn, err error) {
	if client, err = d.network.Hosts[verdict.Inside].ListenUDP(ipv6, 0); err != nil {
		return nil, nil, err
	}
	if server, err = d.network.Hosts[verdict.Outside].ListenUDP(ipv6, port); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return client, server, nil
}

// expect waits for one datagram and compares it.
func expect(c *net.UDPConn, want []byte) error {
	if err := c.SetReadDeadline(time.Now().Add(stepTimeout)); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	n, _, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return fmt.Errorf("did not arrive: %w", err)
	}
	if !bytes.Equal(b[:n], want) {
		return fmt.Errorf("%s arrived, which differ from the %d bytes sent", terminal.Count(n, "byte"), len(want))
	}
	return nil
}

func addrPort(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
