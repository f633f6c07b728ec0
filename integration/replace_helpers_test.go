package integration_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"fragwall/integration/meter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// fullHandover is the load of the tests of hand-overs as a share of the full load in docs/upgrade.md. The
// tests then have as many hand-overs as the document says. With 0 they are short enough to run for every
// change.
var fullHandover = flag.Float64("handover", 0, "test 20 hand-overs and 200 kills under this share of the full load (1 is the full load); 0 for a short test")

// scale is the size of the tests of hand-overs.
type scale struct {
	load    meter.Load
	times   int // number of consecutive hand-overs
	moments int // number of moments at which a process is killed
}

// handoverScale returns the scale that fullHandover selects.
func handoverScale() scale {
	if *fullHandover > 0 {
		return scale{meter.Full.Share(*fullHandover), 20, 200}
	}
	return scale{meter.Load{Small: 1000, Fragmented: 50, Stream: 1_000_000}, 3, 8}
}

// newMiddle makes a network, waits until the links of the middle are up, and returns the joints of the
// middle.
func newMiddle(t *testing.T) (n *lab.Network, before string) {
	t.Helper()
	n = newNetwork(t)
	must(t, n.Middle.Do(noNetfilter))
	eventually(t, func() error {
		if before = joints(t, n.Middle); strings.Contains(before, "NO-CARRIER") || strings.Contains(before, "LOWERLAYERDOWN") {
			return fmt.Errorf("a link is not up yet:\n%s", before)
		}
		return nil
	})
	return n, before
}

// startBox starts the program with a complete configuration. Unlike start, it does not stop the program
// when the test ends, because another process runs by then.
func startBox(t *testing.T, n *lab.Network, config string) *box {
	t.Helper()
	b := &box{Network: n, file: configure(t, config)}
	b.process = launch(t, n.Middle, nil, "run", "-c", b.file)
	b.ready(t)
	return b
}

// replace makes a new process of the program under test take over, and waits until the old process has
// ended.
func (b *box) replace(t *testing.T) {
	t.Helper()
	b.replaceBy(t, program)
}

// replaceBy does what replace does, with another binary.
func (b *box) replaceBy(t *testing.T, binary string) {
	t.Helper()
	old, successor := b.process, launchBinary(t, binary, b.Middle, nil, "run", "-c", b.file, "--replace")
	successor.ready(t)
	if code := old.wait(t); code != 0 {
		t.Fatalf("the old process ended with %d:\n%s\noutput of the new process:\n%s", code, old.stderr.String(), successor.stderr.String())
	}
	b.process = successor
}

// flows waits until at least a quarter of the datagrams that a load has in the time d have arrived on
// both sides.
func flows(t *testing.T, m *meter.Meter, l meter.Load, d time.Duration) {
	t.Helper()
	for side := range verdict.Side(verdict.Sides) {
		more := m.Arrived(side) + uint64(d.Seconds()*float64(l.Small+l.Fragmented))/4 // a busy machine sends less
		eventually(t, func() error {
			if now := m.Arrived(side); now < more {
				return fmt.Errorf("%d datagrams have arrived on the %v, want %d", now, side, more)
			}
			return nil
		})
	}
}

// underLoad calls do while numbered traffic flows. Then it sends the same traffic for the same time without
// do. The first run must not have more faults than the second one, and no counter of the metrics may
// decrease.
func (b *box) underLoad(t *testing.T, l meter.Load, do func(m *meter.Meter)) {
	t.Helper()
	counters := meter.WatchCounters(func() (string, error) { return ask(b.Middle, "/metrics") })
	run := func(do func(m *meter.Meter)) *meter.Report {
		t.Helper()
		m, err := meter.Start(b.Hosts, l)
		must(t, err)
		flows(t, m, l, 100*time.Millisecond)
		do(m)
		flows(t, m, l, 100*time.Millisecond)
		r, err := m.Stop()
		if err != nil {
			t.Fatalf("%v\ncounters of the box: %+v", err, b.counters(t))
		}
		return r
	}
	r := run(do)
	reads, faults := counters.Stop()
	for _, f := range faults {
		t.Error(f)
	}
	t.Logf("counters were read %d times", reads)
	if r.Faults(nil) == nil && *fullHandover == 0 {
		return
	}
	than := run(func(*meter.Meter) { time.Sleep(r.Took) }) // traffic flows during this time
	for _, f := range r.Faults(than) {
		t.Error(f)
	}
	t.Logf("with hand-overs: %v%v\nwithout, in the same time: %v\ncounters of the box: %+v", r, tcpCounts(t, b.Network), than, b.counters(t))
}

// tcpCounts returns counters of the hosts' kernels that show why segments were retransmitted: timeouts,
// loss probes, fast retransmissions and reordering (/proc/net/netstat).
func tcpCounts(t *testing.T, n *lab.Network) (text string) {
	t.Helper()
	for side, h := range n.Hosts {
		must(t, h.Do(func() error {
			b, err := os.ReadFile("/proc/thread-self/net/netstat")
			lines := strings.Split(string(b), "\n")
			for i := 0; i+1 < len(lines); i += 2 {
				names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				for j, name := range names {
					if slices.Contains([]string{"TCPTimeouts", "TCPLossProbes", "TCPFastRetrans", "TCPSACKReorder", "TCPTSReorder"}, name) {
						text += fmt.Sprintf("%v %s %s\n", verdict.Side(side), name, values[j])
					}
				}
			}
			return err
		}))
	}
	return text
}

// acquaintances holds idle flows that the inside has opened: UDP flows, and TCP connections such as that
// of a shell.
type acquaintances struct {
	inside, outside []*net.UDPConn
	client, server  []*net.TCPConn
}

// acquaint opens the given number of UDP flows, and one TCP connection, over IPv4 and over IPv6.
func (b *box) acquaint(t *testing.T, flows int) *acquaintances {
	t.Helper()
	var a acquaintances
	for _, ipv6 := range []bool{false, true} {
		for range flows {
			in, out := listen(t, b.Hosts[verdict.Inside], ipv6, 0), listen(t, b.Hosts[verdict.Outside], ipv6, 0)
			_, err := in.WriteToUDPAddrPort([]byte("hello"), address(out))
			must(t, err)
			arrive(t, out, []byte("hello"))
			a.inside, a.outside = append(a.inside, in), append(a.outside, out)
		}
		client, server := connect(t, b.Hosts[verdict.Inside], b.Hosts[verdict.Outside], ipv6)
		a.client, a.server = append(a.client, client), append(a.server, server)
	}
	a.talk(t)
	return &a
}

// talk sends data over each flow, from the outside first. That data passes only if it belongs to a flow.
func (a *acquaintances) talk(t *testing.T) {
	t.Helper()
	for i, out := range a.outside {
		_, err := out.WriteToUDPAddrPort([]byte("are you there?"), address(a.inside[i]))
		must(t, err)
	}
	for _, in := range a.inside {
		arrive(t, in, []byte("are you there?"))
	}
	for i, server := range a.server {
		must(t, say(server, a.client[i], "prompt"))
		must(t, say(a.client[i], server, "command"))
	}
}

// say sends a line over a connection, and checks that it arrives.
func say(from, to *net.TCPConn, line string) error {
	deadline := time.Now().Add(waitTimeout)
	if err := from.SetDeadline(deadline); err != nil {
		return err
	}
	if err := to.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := from.Write([]byte(line)); err != nil {
		return err
	}
	got := make([]byte, 100)
	n, err := to.Read(got)
	if err == nil && string(got[:n]) != line {
		err = fmt.Errorf("%q arrived, want %q", got[:n], line)
	}
	return err
}

// joints lists what describe lists, and also the joins of the NICs as ip and tc show them, and the number
// of fast path programs.
func joints(t *testing.T, ns *lab.Namespace) string {
	t.Helper()
	text := describe(t, ns)
	must(t, ns.Do(func() error {
		for _, command := range []string{"ip -d link", "tc qdisc show", "tc filter show dev nic-in ingress", "tc filter show dev nic-out ingress"} {
			f := strings.Fields(command)
			out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", command, err, out)
			}
			text += string(out)
		}
		for _, nic := range []string{lab.InsideNIC, lab.OutsideNIC} {
			i, err := net.InterfaceByName(nic)
			if err != nil {
				return err
			}
			programs, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: ebpf.AttachTCXIngress})
			if err == nil {
				text += fmt.Sprintf("%s has %d programs\n", nic, len(programs.Programs))
			}
		}
		return nil
	}))
	return text
}

// sameJoints waits until the joints of a namespace are the same as before.
func sameJoints(t *testing.T, ns *lab.Namespace, before string) {
	t.Helper()
	eventually(t, func() error {
		if now := joints(t, ns); now != before {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, now)
		}
		return nil
	})
}

// endAs stops a box, and checks that the joints of the middle are the same as before.
func (b *box) endAs(t *testing.T, before string) {
	t.Helper()
	b.settle(t)
	b.stop(t)
	sameJoints(t, b.Middle, before)
}

// probe sends numbered datagrams from the inside, and returns the number sent and the number that arrived.
// The test fails if a datagram arrives twice, because then two processes have forwarded it.
func (b *box) probe(t *testing.T) (sent, arrived int) {
	t.Helper()
	in, out := listen(t, b.Hosts[verdict.Inside], true, 0), listen(t, b.Hosts[verdict.Outside], true, 0)
	defer in.Close()
	defer out.Close()
	const datagrams = 10
	for i := range datagrams {
		_, err := in.WriteToUDPAddrPort(append(packettest.Body(100), byte(i)), address(out))
		must(t, err)
	}
	var seen [datagrams]bool
	must(t, out.SetReadDeadline(time.Now().Add(100*time.Millisecond))) // no event shows that nothing arrives
	got := make([]byte, 200)
	for {
		n, err := out.Read(got)
		if err != nil {
			return datagrams, arrived
		}
		if i := got[n-1]; seen[i] {
			t.Errorf("datagram %d arrived twice", i)
		} else {
			seen[i] = true
			arrived++
		}
	}
}
