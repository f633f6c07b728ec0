package meter_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fragwall/integration/meter"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	rerun, code, err := lab.Enter(ctx)
	stop()
	if err == nil && !rerun {
		_, err = exec.LookPath("nft")
		if err == nil {
			code = m.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests of the meter cannot run here:", err)
		if code = 0; os.Getenv("CI") != "" {
			code = 1 // CI must not skip the tests
		}
	}
	os.Exit(code)
}

// load is low enough for any machine.
var load = meter.Load{Small: 2000, Fragmented: 100, Stream: 1 << 20}

// run sends a load for a time, and returns the report.
func run(t *testing.T, n *lab.Network, l meter.Load, d time.Duration) *meter.Report {
	t.Helper()
	m, err := meter.Start(n.Hosts, l)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(d) // the report is about the traffic of this time
	r, err := m.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	return r
}

// TestCable connects the hosts by a cable. There must be no faults, and both kinds of datagrams and all
// streams must arrive.
func TestCable(t *testing.T) {
	n, err := lab.NewDirect()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	r := run(t, n, load, time.Second)
	for _, f := range r.Faults(nil) {
		t.Error(f)
	}
	for side := range verdict.Sides {
		if r.Small[side].Sent < 500 || r.Fragmented[side].Sent < 25 {
			t.Errorf("from %v: %d small and %d fragmented datagrams were sent", verdict.Side(side), r.Small[side].Sent, r.Fragmented[side].Sent)
		}
	}
	if len(r.Streams) != 4 {
		t.Errorf("%d streams", len(r.Streams))
	}
	for _, s := range r.Streams {
		if s.Bytes == 0 {
			t.Errorf("no data of a stream arrived: %+v", s)
		}
	}
}

// disturbed is an nftables ruleset that forwards frames between the middle's interfaces. It drops and
// duplicates some packets from the inside, and counts them.
const disturbed = `
table netdev t {
	chain inside {
		type filter hook ingress device "nic-in" priority 0
		meta l4proto udp udp length 40 numgen inc mod 50 == 7 counter name lost drop
		meta l4proto udp udp length 40 numgen inc mod 70 == 7 counter name repeated dup to "nic-out"
		meta l4proto tcp tcp flags & fin == 0 ip length > 1000 numgen inc mod 20 == 7 counter drop
		fwd to "nic-out"
	}
	chain outside {
		type filter hook ingress device "nic-out" priority 0
		fwd to "nic-in"
	}
	counter lost {}
	counter repeated {}
}
`

// TestKernelCounts compares the meter with the kernel's counters of dropped and duplicated packets.
func TestKernelCounts(t *testing.T) {
	n, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	nft := func(input string, arguments ...string) (out []byte) {
		t.Helper()
		err := n.Middle.Do(func() (err error) {
			c := exec.Command("nft", arguments...)
			c.Stdin = strings.NewReader(input)
			out, err = c.CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		return out
	}
	nft(disturbed, "-f", "-")
	r := run(t, n, load, time.Second)
	counted := func(name string) uint64 {
		t.Helper()
		m := regexp.MustCompile(`packets (\d+)`).FindSubmatch(nft("", "list", "counter", "netdev", "t", name))
		if m == nil {
			t.Fatalf("no counter %s", name)
		}
		v, err := strconv.ParseUint(string(m[1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	lost, repeated := counted("lost"), counted("repeated")
	d := r.Small[verdict.Inside]
	if lost == 0 || repeated == 0 || d.Lost != lost || d.Duplicated != repeated || d.Corrupted != 0 {
		t.Errorf("the kernel dropped %d and duplicated %d, but the meter has %+v", lost, repeated, d)
	}
	if r.Small[verdict.Outside].Lost+r.Fragmented[verdict.Inside].Lost+r.Fragmented[verdict.Outside].Lost != 0 {
		t.Errorf("datagrams that nftables did not drop were lost:\n%v", r)
	}
	if r.Retransmissions() == 0 {
		t.Error("segments were dropped, but there were no retransmissions")
	}
	want := []string{"lost", "duplicated", "retransmissions"}
	if faults := r.Faults(nil); len(faults) != len(want) {
		t.Errorf("faults %q, want %q", faults, want)
	}
	if faults := r.Faults(r); faults != nil {
		t.Errorf("faults compared with itself: %q", faults)
	}
}

// BenchmarkCable logs the rate that the meter reaches on this machine without a box.
func BenchmarkCable(b *testing.B) {
	n, err := lab.NewDirect()
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	for b.Loop() {
		m, err := meter.Start(n.Hosts, meter.Load{Small: 50000, Fragmented: 1000, Stream: 12 << 20})
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		r, err := m.Stop()
		if err != nil {
			b.Fatal(err)
		}
		b.Log(r)
	}
}
