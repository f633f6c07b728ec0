package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// idleFlows is the number of idle connections per protocol and address family.
const idleFlows = 250

// streamAfter is the time after which connection tracking treats a UDP exchange as a stream, which
// it does not evict from a full table (net/netfilter/nf_conntrack_proto_udp.c).
const streamAfter = 2200 * time.Millisecond

// Timeout and number of tries of an exchange.
const (
	tryTimeout = 300 * time.Millisecond
	tries      = 3
)

// newcomerEvery is the interval between new exchanges during the flood.
const newcomerEvery = 20 * time.Millisecond

// idle is a set of connections of one address family that are answered before a flood and idle
// during the flood.
type idle struct {
	hosts   [verdict.Sides]*lab.Host
	ipv6    bool
	clients []net.Conn   // on the inside host: TCP connections, then UDP sockets
	servers []net.Conn   // the other ends of the TCP connections, in the same order
	server  *net.UDPConn // the other end of the UDP sockets
	echo    *net.UDPConn // answers newcomers
	echoing sync.WaitGroup
}

// openIdle opens the connections.
func openIdle(hosts [verdict.Sides]*lab.Host, ipv6 bool) (i *idle, err error) {
	i = &idle{hosts: hosts, ipv6: ipv6}
	if err = errors.Join(i.openTCP(), i.openUDP()); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *idle) close() {
	for _, c := range append(i.clients, i.servers...) {
		_ = c.Close()
	}
	for _, c := range []*net.UDPConn{i.server, i.echo} {
		if c != nil {
			_ = c.Close()
		}
	}
	i.echoing.Wait()
}

// openTCP opens connections, and sends one byte over each in both directions.
func (i *idle) openTCP() error {
	in, out := i.hosts[verdict.Inside], i.hosts[verdict.Outside]
	listener, err := out.ListenTCP(i.ipv6, streamPort)
	if err != nil {
		return err
	}
	defer listener.Close()
	for range idleFlows {
		client, err := in.DialTCP(netip.AddrPortFrom(out.Addr(i.ipv6), streamPort), connectTimeout)
		if err != nil {
			return err
		}
		i.clients = append(i.clients, client)
		server, err := listener.Accept()
		if err != nil {
			return err
		}
		i.servers = append(i.servers, server)
		if err := errors.Join(pass(client, server), pass(server, client)); err != nil {
			return err
		}
	}
	return nil
}

// pass sends a byte from one end to the other.
func pass(from, to net.Conn) error {
	if _, err := from.Write([]byte{1}); err != nil {
		return err
	}
	if err := to.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	_, err := to.Read(make([]byte, 1))
	return err
}

// openUDP opens UDP exchanges that last streamAfter, so that they are streams.
func (i *idle) openUDP() (err error) {
	in, out := i.hosts[verdict.Inside], i.hosts[verdict.Outside]
	if i.server, err = out.ListenUDP(i.ipv6, datagramPort); err != nil {
		return err
	}
	if i.echo, err = out.ListenUDP(i.ipv6, echoPort); err != nil {
		return err
	}
	i.echoing.Go(func() { _ = answer(i.echo) }) // until it is closed
	for range idleFlows {
		c, err := in.ListenUDP(i.ipv6, 0)
		if err != nil {
			return err
		}
		i.clients = append(i.clients, c)
	}
	for round := range 2 {
		if round > 0 {
			time.Sleep(streamAfter)
		}
		for _, c := range i.udp() {
			if _, err := c.WriteToUDPAddrPort([]byte{1}, addrPort(i.server)); err != nil {
				return err
			}
			if err := i.server.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
				return err
			}
			_, from, err := i.server.ReadFromUDPAddrPort(make([]byte, 1))
			if err != nil {
				return err
			}
			if _, err := i.server.WriteToUDPAddrPort([]byte{1}, from); err != nil {
				return err
			}
			if err := c.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// udp returns the UDP sockets among the clients.
func (i *idle) udp() (sockets []*net.UDPConn) {
	for _, c := range i.clients[idleFlows:] {
		sockets = append(sockets, c.(*net.UDPConn))
	}
	return sockets
}

// survivors sends over each connection from the outside host. It returns the number of connections
// on which data arrived.
func (i *idle) survivors() (came int, err error) {
	var alive atomic.Int64
	var readers sync.WaitGroup
	deadline := time.Now().Add((tries + 2) * tryTimeout)
	for _, c := range i.clients {
		if err := c.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		readers.Go(func() {
			if n, _ := c.Read(make([]byte, 1)); n == 1 {
				alive.Add(1)
			}
		})
	}
	for _, c := range i.servers {
		if _, err := c.Write([]byte{1}); err != nil { // retransmitted by TCP
			return 0, err
		}
	}
	for range tries {
		for _, c := range i.udp() {
			if _, err := i.server.WriteToUDPAddrPort([]byte{1}, addrPort(c)); err != nil {
				return 0, err
			}
		}
		time.Sleep(tryTimeout)
	}
	readers.Wait()
	return int(alive.Load()), nil
}

// newcomers starts new UDP exchanges from the inside host until ctx is done. It returns the number
// of exchanges and the number of those that were answered.
func (i *idle) newcomers(ctx context.Context) (sent, came int, err error) {
	var answered atomic.Int64
	var exchanges sync.WaitGroup
	ticker := time.NewTicker(newcomerEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			exchanges.Wait()
			return sent, int(answered.Load()), nil
		case <-ticker.C:
		}
		c, err := i.hosts[verdict.Inside].ListenUDP(i.ipv6, 0)
		if err != nil {
			exchanges.Wait()
			return sent, 0, err
		}
		sent++
		exchanges.Go(func() {
			defer c.Close()
			if ask(c, addrPort(i.echo)) {
				answered.Add(1)
			}
		})
	}
}

// ask sends a datagram up to three times, and reports whether a response arrived.
func ask(c *net.UDPConn, to netip.AddrPort) bool {
	for range tries {
		if _, err := c.WriteToUDPAddrPort([]byte{1}, to); err != nil {
			return false
		}
		if err := c.SetReadDeadline(time.Now().Add(tryTimeout)); err != nil {
			return false
		}
		if n, _ := c.Read(make([]byte, 1)); n == 1 {
			return true
		}
	}
	return false
}
