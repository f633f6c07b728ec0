package integration_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// onlyOutward accepts new flows from the inside only.
const onlyOutward = `
[policy]
stateful = true
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// downFor is the time between the stop of a box and its next start.
const downFor = 5 * time.Second

// TestFlowsAfterRestart stops a box and starts it again later. Connections that the inside opened must
// continue: an idle one, such as ssh, and a transfer in each direction. The outside must not be able to
// open connections.
func TestFlowsAfterRestart(t *testing.T) {
	n, state := newNetwork(t), t.TempDir()
	inside, outside := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	b := &box{Network: n, file: configure(t, devices+onlyOutward)}
	run := func() {
		b.process = launch(t, n.Middle, nil, "run", "-c", b.file, "--state", state)
		b.ready(t)
	}
	run()
	var idle []*connected
	var transfers []*transfer
	for _, ipv6 := range []bool{false, true} {
		idle = append(idle, openTCP(t, inside, outside, ipv6))
		down, up := openTCP(t, inside, outside, ipv6), openTCP(t, inside, outside, ipv6)
		transfers = append(transfers, startTransfer(down.server, down.client), startTransfer(up.client, up.server))
	}
	for _, f := range transfers {
		f.awaitProgress(t)
	}
	b.stop(t)
	time.Sleep(downFor)
	run()
	if files, err := os.ReadDir(state); err != nil || len(files) > 0 {
		t.Errorf("while the box runs, %d files with flows exist, want 0: %v", len(files), err)
	}
	for _, c := range idle {
		c.answers(t)
	}
	for _, f := range transfers {
		f.awaitProgress(t)
	}
	refuses(t, outside, inside)
	b.stop(t)
}

// TestNoState stops a box with --no-state, and kills another box. After the next start, their flows must
// not exist.
func TestNoState(t *testing.T) {
	n := newNetwork(t)
	for name, arguments := range map[string][]string{"stopped": {"--no-state"}, "killed": {"--state", t.TempDir()}} {
		b := &box{Network: n, file: configure(t, devices+onlyOutward)}
		run := func() {
			b.process = launch(t, n.Middle, nil, append([]string{"run", "-c", b.file}, arguments...)...)
			b.ready(t)
		}
		run()
		c := openTCP(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false)
		if name == "killed" {
			must(t, b.Kill())
			b.wait(t)
		} else {
			b.stop(t)
		}
		run()
		_, err := c.server.Write([]byte("word"))
		must(t, err)
		b.awaitDrop(t, verdict.Outside, "policy_default")
		b.stop(t)
	}
}

// awaitDrop waits until a frame from a side was dropped for a reason.
func (b *box) awaitDrop(t *testing.T, from verdict.Side, reason string) {
	t.Helper()
	b.awaitCounters(t, from, func(c counters) bool { return c.dropped[reason] > 0 })
}

// connected is an open TCP connection without data so far.
type connected struct{ client, server net.Conn }

// openTCP opens a connection from a host to another.
func openTCP(t *testing.T, from, to *lab.Host, ipv6 bool) *connected {
	t.Helper()
	l, err := to.ListenTCP(ipv6, 0)
	must(t, err)
	defer l.Close()
	client, err := from.DialTCP(netip.AddrPortFrom(to.Addr(ipv6), l.Addr().(*net.TCPAddr).AddrPort().Port()), waitTimeout)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return &connected{client, server}
}

// answers sends data from the server to the client. The data passes only if it belongs to a flow.
func (c *connected) answers(t *testing.T) {
	t.Helper()
	word := []byte("word")
	if _, err := c.server.Write(word); err != nil {
		t.Fatal(err)
	}
	must(t, c.client.SetReadDeadline(time.Now().Add(waitTimeout)))
	if n, err := c.client.Read(make([]byte, 100)); err != nil || n != len(word) {
		t.Errorf("%d of %d bytes arrived: %v", n, len(word), err)
	}
}

// refuses checks that a host cannot open connections to another.
func refuses(t *testing.T, from, to *lab.Host) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		l, err := to.ListenTCP(ipv6, 0)
		must(t, err)
		at := netip.AddrPortFrom(to.Addr(ipv6), l.Addr().(*net.TCPAddr).AddrPort().Port())
		if c, err := from.DialTCP(at, 300*time.Millisecond); err == nil {
			_ = c.Close()
			t.Errorf("a connection to %v was accepted", at)
		}
		must(t, l.Close())
	}
}

// transfer sends bytes continuously from one end of a connection to the other.
type transfer struct {
	failed chan error

	mu sync.Mutex
	// mu guards the fields below.
	arrived int // bytes
}

// startTransfer starts to send 16 MiB per second.
func startTransfer(from, to net.Conn) *transfer {
	f := &transfer{failed: make(chan error, 2)}
	go func() {
		piece := make([]byte, 16<<10)
		for {
			if _, err := from.Write(piece); err != nil {
				f.failed <- err
				return
			}
			time.Sleep(time.Millisecond) // limits the rate
		}
	}()
	go func() {
		room := make([]byte, 64<<10)
		for {
			n, err := to.Read(room)
			if err != nil {
				f.failed <- err
				return
			}
			f.add(n)
		}
	}()
	return f
}

// add adds to the number of bytes, and returns the sum.
func (f *transfer) add(bytes int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrived += bytes
	return f.arrived
}

// awaitProgress waits until another 1 MiB has arrived, which is more than can have been in transit.
func (f *transfer) awaitProgress(t *testing.T) {
	t.Helper()
	before := f.add(0)
	eventually(t, func() error {
		select {
		case err := <-f.failed:
			t.Fatalf("the transfer broke: %v", err)
		default:
		}
		if n := f.add(0) - before; n < 1<<20 {
			return fmt.Errorf("%d bytes arrived", n)
		}
		return nil
	})
}
