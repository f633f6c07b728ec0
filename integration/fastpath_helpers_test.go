package integration_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// fastPath is the part of the status that describes the fast path.
type fastPath struct {
	State, Reason, Error string
	Entries              int
	MapErrors            int `json:"map_errors"`
	Sides                map[string]struct {
		Forwarded int            `json:"forwarded_frames"`
		Dropped   int            `json:"dropped_frames"`
		PassedUp  map[string]int `json:"passed_up_frames"`
		Ring      int            `json:"ring_frames"`
	}
}

// fastPath requests the state of the fast path from the program.
func (p *process) fastPath(t *testing.T) fastPath {
	t.Helper()
	var report struct {
		FastPath fastPath `json:"fast_path"`
	}
	must(t, json.Unmarshal([]byte(fetch(t, p.ns, "/api/status")), &report))
	return report.FastPath
}

// needFastPath fails the test if the fast path is off. If the kernel does not support it, if the
// configuration turns it off, or in a user namespace, where it is not permitted, the test is skipped,
// except in CI.
func (p *process) needFastPath(t *testing.T) {
	t.Helper()
	users, err := os.ReadFile("/proc/self/uid_map") // user_namespaces(7)
	must(t, err)
	all := strings.Join(strings.Fields(string(users)), " ") == "0 0 4294967295"
	switch f := p.fastPath(t); {
	case f.State == "on":
	case os.Getenv("CI") == "" && (!all || f.Reason == "kernel" || f.Reason == "configuration"):
		t.Skipf("the fast path is off: %+v", f)
	default:
		t.Fatalf("the fast path is off: %+v", f)
	}
}

// talkUDP opens a UDP flow between two hosts. The returned function sends 300 datagrams of size bytes
// each way, one at a time: it sends the next one when the previous one has arrived.
func talkUDP(t *testing.T, a, b *lab.Host, ipv6 bool, size int) (talk func()) {
	t.Helper()
	one, other := listen(t, a, ipv6, 0), listen(t, b, ipv6, 0)
	body, n := packettest.Body(size), 0
	return func() {
		t.Helper()
		for range 300 {
			n++
			copy(body, fmt.Sprintf("%8d", n))
			_, err := one.WriteToUDPAddrPort(body, address(other))
			must(t, err)
			arrive(t, other, body)
			_, err = other.WriteToUDPAddrPort(body, address(one))
			must(t, err)
			arrive(t, one, body)
		}
	}
}

// connect opens a TCP connection from one host to another, and returns both ends.
func connect(t *testing.T, client, server *lab.Host, ipv6 bool) (one, other *net.TCPConn) {
	t.Helper()
	listener, err := server.ListenTCP(ipv6, 0)
	must(t, err)
	defer listener.Close()
	must(t, listener.SetDeadline(time.Now().Add(waitTimeout)))
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	c, err := client.DialTCP(netip.AddrPortFrom(server.Addr(ipv6), port), waitTimeout)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	other, err = listener.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { _ = other.Close() })
	return c.(*net.TCPConn), other
}

// talkTCP sends 32 MiB over a connection in each direction, one after the other.
func talkTCP(t *testing.T, one, other *net.TCPConn) {
	t.Helper()
	const volume = 32 << 20 // bytes
	body := random(3, volume)
	deadline := time.Now().Add(2 * waitTimeout)
	for _, way := range [][2]*net.TCPConn{{one, other}, {other, one}} {
		must(t, errors.Join(way[0].SetDeadline(deadline), way[1].SetDeadline(deadline)))
		var g errgroup.Group
		g.Go(func() error {
			_, err := way[0].Write(body)
			return err
		})
		got := make([]byte, volume)
		_, err := io.ReadFull(way[1], got)
		must(t, errors.Join(err, g.Wait()))
		if !bytes.Equal(got, body) {
			t.Fatal("the bytes that arrived differ from those sent")
		}
	}
}

// echoes sends 700 echo requests from a host to an address, 2 ms apart. All must be answered.
func echoes(t *testing.T, from *lab.Host, to netip.Addr) {
	t.Helper()
	must(t, from.Do(func() error {
		out, err := exec.Command("ping", "-n", "-q", "-c", "700", "-i", "0.002", "-W", "20", to.String()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), " 0% packet loss") {
			return fmt.Errorf("ping %s: %w\n%s", to, err, out)
		}
		return nil
	}))
}

// takes repeats talk until the fast path forwards at least a share of its frames from each side. This
// normally takes less than a second.
func (b *box) takes(t *testing.T, share float64, talk func()) {
	t.Helper()
	deadline := time.Now().Add(waitTimeout)
	for {
		before, fast := b.counters(t), b.fastPath(t)
		talk()
		now, nowFast := b.counters(t), b.fastPath(t)
		enough := true
		for side := range verdict.Side(verdict.Sides) {
			all := now[side].received - before[side].received
			took := nowFast.Sides[side.String()].Forwarded - fast.Sides[side.String()].Forwarded
			enough = enough && float64(took) >= share*float64(all)
		}
		if enough {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the fast path forwarded less than %v of the frames: before %+v, %+v; after %+v, %+v", share, before, fast, now, nowFast)
		}
	}
}

// nicFrames returns the number of frames and bytes that a NIC has received, according to the counters
// of its driver.
func nicFrames(t *testing.T, ns *lab.Namespace, nic string) (frames, bytes uint64) {
	t.Helper()
	must(t, ns.Do(func() error {
		link, err := netlink.LinkByName(nic)
		if err == nil {
			frames, bytes = link.Attrs().Statistics.RxPackets, link.Attrs().Statistics.RxBytes
		}
		return err
	}))
	return frames, bytes
}

// streamUDP sends a datagram per gap until stop is called. stop returns the number of datagrams sent.
func streamUDP(from *lab.Host, to netip.AddrPort, size int, gap time.Duration) (stop func() (int, error), err error) {
	c, err := from.ListenUDP(to.Addr().Is6(), 0)
	if err != nil {
		return nil, err
	}
	sent, done := 0, make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer c.Close()
		body := packettest.Body(size)
		ticker := time.NewTicker(gap)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-done:
				return nil
			}
			if _, err := c.WriteToUDPAddrPort(body, to); err != nil {
				return err
			}
			sent++
		}
	})
	return func() (int, error) {
		close(done)
		err := g.Wait()
		return sent, err
	}, nil
}
