package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// Ports of the services on the outside host, which the policies accept.
const (
	datagramPort = 5300 // receives the honest sender's datagrams
	echoPort     = 5301 // answers the probe
	streamPort   = 5302 // receives TCP connections
	harmlessPort = 5303 // receives the harmless packets that replace a flood
	closedPort   = 9999 // has no service, and the policies drop packets to it
)

// Rates in datagrams per second, and sizes in bytes, of the honest sender and of the probe.
const (
	honestRate   = 100
	honestSize   = 4000
	probeRate    = 200
	probeSize    = 64
	stragglers   = 300 * time.Millisecond // wait for the last datagrams
	lateResponse = time.Second            // probes that take longer count as lost
)

// honest is the honest traffic of one address family.
type honest struct {
	hosts  [verdict.Sides]*lab.Host
	ipv6   bool
	sent   int             // datagrams
	came   int             // datagrams that arrived
	probes int             // sent
	trips  []time.Duration // round-trip times of the probes
}

// run sends until ctx is done, and then waits for outstanding datagrams.
func (h *honest) run(ctx context.Context) error {
	server, err := h.hosts[verdict.Outside].ListenUDP(h.ipv6, datagramPort)
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := h.hosts[verdict.Inside].ListenUDP(h.ipv6, 0)
	if err != nil {
		return err
	}
	defer client.Close()
	echo, err := h.hosts[verdict.Outside].ListenUDP(h.ipv6, echoPort)
	if err != nil {
		return err
	}
	defer echo.Close()
	probe, err := h.hosts[verdict.Inside].ListenUDP(h.ipv6, 0)
	if err != nil {
		return err
	}
	defer probe.Close()
	if err := server.SetReadBuffer(8 << 20); err != nil {
		return err
	}

	var readers, senders sync.WaitGroup
	var failures [4]error
	readers.Go(func() { failures[0] = h.receive(server) })
	readers.Go(func() { failures[1] = answer(echo) })
	start := time.Now()
	readers.Go(func() { failures[2] = h.measure(probe, start) })
	senders.Go(func() {
		h.sent, failures[3] = sendPaced(ctx, client, addrPort(server), honestRate, honestSize, start)
	})
	var err2 error
	h.probes, err2 = sendPaced(ctx, probe, addrPort(echo), probeRate, probeSize, start)
	senders.Wait()
	time.Sleep(stragglers)
	for _, c := range []*net.UDPConn{server, echo, probe} {
		if err := c.SetReadDeadline(time.Now()); err != nil {
			return err
		}
	}
	readers.Wait()
	return errors.Join(err2, errors.Join(failures[:]...))
}

func addrPort(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// sendPaced sends datagrams until ctx is done: rate per second, each with size bytes that contain
// its number and the time since start. It returns the number of datagrams.
func sendPaced(ctx context.Context, c *net.UDPConn, to netip.AddrPort, rate, size int, start time.Time) (n int, err error) {
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	body := packettest.Body(size)
	for {
		select {
		case <-ctx.Done():
			return n, nil
		case <-ticker.C:
		}
		binary.BigEndian.PutUint32(body, uint32(n))
		binary.BigEndian.PutUint64(body[8:], uint64(time.Since(start)))
		if _, err := c.WriteToUDPAddrPort(body, to); err != nil {
			return n, err
		}
		n++
	}
}

// each calls f with every datagram that a socket receives, until the socket's read deadline.
func each(c *net.UDPConn, f func(b []byte, from netip.AddrPort) error) error {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		if err := f(b[:n], from); err != nil {
			return err
		}
	}
}

// receive counts the honest datagrams, without duplicates.
func (h *honest) receive(c *net.UDPConn) error {
	seen := map[uint32]bool{}
	return each(c, func(b []byte, _ netip.AddrPort) error {
		if n := binary.BigEndian.Uint32(b); len(b) == honestSize && !seen[n] {
			seen[n] = true
			h.came++
		}
		return nil
	})
}

// answer sends received datagrams back.
func answer(c *net.UDPConn) error {
	return each(c, func(b []byte, from netip.AddrPort) error {
		_, err := c.WriteToUDPAddrPort(b, from)
		return err
	})
}

// measure records the round trips of the probes.
func (h *honest) measure(c *net.UDPConn, start time.Time) error {
	return each(c, func(b []byte, _ netip.AddrPort) error {
		if trip := time.Since(start) - time.Duration(binary.BigEndian.Uint64(b[8:])); trip < lateResponse {
			h.trips = append(h.trips, trip)
		}
		return nil
	})
}

// percentile returns the round-trip time that p percent of all sent probes did not exceed, or 0 if
// fewer responses arrived.
func percentile(trips []time.Duration, sent, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(trips))
	if i := (sent*p+99)/100 - 1; i >= 0 && i < len(sorted) {
		return sorted[i]
	}
	return 0
}
