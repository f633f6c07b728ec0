package integration_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

var (
	sequences = flag.Int("sequences", 20000, "number of fragment sequences to compare with the kernel")
	seed      = flag.Uint64("seed", 1, "seed of the random sequences and exchanges")
)

const oraclePolicy = `
[fragments]
mode = "%s"
emit = "%s"
memory = "1GiB"
max_datagrams = 1000000
[policy]
default = "accept"
[[rule]]
name = "denied"
action = "drop"
protocol = ["udp", "tcp"]
dst_port = 666
`

// receiver is a Linux host that receives the sequences on raw sockets.
type receiver struct {
	network *lab.Network
	tap     *lab.Tap // of the sender
	sockets []*net.IPConn

	mu sync.Mutex
	// mu guards the fields below.
	got map[netip.Addr][][]byte // received packets by source: protocol and payload
}

// newReceiver opens the sockets, and raises the host's kernel limits for fragments.
func newReceiver(t *testing.T, network *lab.Network) *receiver {
	r := &receiver{network: network, got: map[netip.Addr][][]byte{}}
	sender, host := network.Hosts[verdict.Inside], network.Hosts[verdict.Outside]
	must(t, host.Do(func() error {
		return lab.Sysctl(map[string]string{
			"net/ipv4/ipfrag_high_thresh":  "2000000000",
			"net/ipv4/ipfrag_max_dist":     "0",
			"net/ipv6/ip6frag_high_thresh": "2000000000",
			"net/ipv4/conf/all/rp_filter":  "0",
			"net/ipv4/conf/eth0/rp_filter": "0",
		})
	}))
	must(t, host.Do(func() error { return routeBack(sender) }))
	var err error
	r.tap, err = sender.OpenTap(lab.HostNIC)
	must(t, err)
	t.Cleanup(func() { r.tap.Close() })
	for _, ipv6 := range []bool{false, true} {
		for _, protocol := range protocols {
			c, err := host.ListenIP(ipv6, protocol)
			must(t, err)
			r.sockets = append(r.sockets, c)
			go r.read(c, protocol)
		}
	}
	t.Cleanup(func() {
		for _, c := range r.sockets {
			c.Close()
		}
	})
	return r
}

// routeBack adds routes to all sources through the sender.
func routeBack(sender *lab.Host) error {
	link, err := netlink.LinkByName(lab.HostNIC)
	if err != nil {
		return err
	}
	for _, ipv6 := range []bool{false, true} {
		network := netip.PrefixFrom(sourceOf(0, ipv6), map[bool]int{false: 9, true: 48}[ipv6])
		err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       &net.IPNet{IP: network.Masked().Addr().AsSlice(), Mask: net.CIDRMask(network.Bits(), network.Addr().BitLen())},
			Gw:        sender.Addr(ipv6).AsSlice(),
		})
		if err != nil {
			return fmt.Errorf("add route to %s: %w", network, err)
		}
	}
	return nil
}

// read stores the packets that a socket receives.
func (r *receiver) read(c *net.IPConn, protocol uint8) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromIP(b)
		if err != nil {
			return // closed
		}
		src, _ := netip.AddrFromSlice(from.IP)
		r.mu.Lock()
		r.got[src.Unmap()] = append(r.got[src.Unmap()], append([]byte{protocol}, b[:n]...))
		r.mu.Unlock()
	}
}

// from returns the packets from a source, sorted by content.
func (r *receiver) from(src netip.Addr) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sorted(r.got[src])
}

// forget deletes the packets from a source, which is not used again.
func (r *receiver) forget(src netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.got, src)
}

// waitFor waits for the packets from a source, one per socket.
func (r *receiver) waitFor(t *testing.T, source int) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		n := len(r.from(sourceOf(source, false))) + len(r.from(sourceOf(source, true)))
		switch {
		case n == len(r.sockets):
			return
		case time.Now().After(deadline):
			t.Fatalf("%d of %d packets arrived that mark the end", n, len(r.sockets))
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// TestKernelAgrees sends random sequences of fragments to a Linux host, and to another one behind the
// box. The sockets behind the box must receive what the model of the box predicts. A rule must explain
// each difference between the sockets of the two hosts.
func TestKernelAgrees(t *testing.T) {
	t.Run("reassemble", func(t *testing.T) { compareWithKernel(t, packet.ModeReassemble, packet.EmitOriginal) })
	t.Run("reassemble, whole", func(t *testing.T) { compareWithKernel(t, packet.ModeReassemble, packet.EmitWhole) })
	t.Run("validate", func(t *testing.T) { compareWithKernel(t, packet.ModeValidate, packet.EmitOriginal) })
}

// compareWithKernel runs the comparison in a fragment mode.
func compareWithKernel(t *testing.T, mode packet.Mode, emit packet.Emit) {
	direct, err := lab.NewDirect()
	must(t, err)
	defer direct.Close()
	behind := newNetwork(t)
	config := configure(t, devices+fmt.Sprintf(oraclePolicy, mode, emit))
	box := &box{Network: behind, process: launch(t, behind.Middle, nil, "run", "-c", config)}
	box.ready(t)
	defer box.stop(t)
	o := &oracle{T: t, mode: mode, kernel: newReceiver(t, direct), box: newReceiver(t, behind), differ: map[string]int{}}

	onOneCPU(t)
	for n := 0; n < *sequences && !t.Failed(); n += batch {
		o.batch(n, min(batch, *sequences-n))
	}
	t.Logf("%d sequences (%d sent again), %d datagrams behind the box; sequences that differ without the box, by rule:", *sequences, o.again, o.delivered)
	for _, why := range slices.Sorted(maps.Keys(o.differ)) {
		t.Logf("%6d  %s", o.differ[why], why)
	}
}

// onOneCPU binds the calling goroutine to one CPU until the test ends. If a sender moved to another
// CPU, its frames could be reordered.
func onOneCPU(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var before, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &before))
	for cpu := range len(before) * 64 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	must(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() { must(t, unix.SchedSetaffinity(0, &before)) })
}

// batch is the number of sequences sent at once. Their frames fit into the queue of a TAP (500 frames
// by default), because the sender does not wait.
const batch = 24

// oracle compares two receivers.
type oracle struct {
	*testing.T
	mode        packet.Mode
	kernel, box *receiver
	sources     int            // number of sources used so far
	delivered   int            // number of datagrams behind the box
	differ      map[string]int // number of different results, by the rules that explain them
	again       int            // number of sequences that were sent again
}

// tries is the number of times that a sequence is sent again before the test fails. On a busy machine
// a full backlog may lose a frame, but an error of the box occurs every time.
const tries = 4

// batch sends n sequences, starting with number first, and sends failed ones again.
func (o *oracle) batch(first, n int) {
	var numbers []int
	for i := range n {
		numbers = append(numbers, first+i)
	}
	for _, failed := range o.send(numbers) {
		why := error(nil)
		for try := 1; ; try++ {
			again := o.send([]int{failed.number})
			if len(again) == 0 {
				o.again++
				break
			}
			if why = again[0].why; try == tries {
				o.Errorf("sequence %d, seed %d: %v", failed.number, *seed, why)
				break
			}
		}
	}
}

// failure is an unexpected result of a sequence.
type failure struct {
	number int
	why    error
}

// send sends sequences to both receivers, each from a new source, and then whole packets that mark
// the end. It returns the failures.
func (o *oracle) send(numbers []int) []failure {
	address := func(ipv6 bool) netip.Addr { return o.box.network.Hosts[verdict.Outside].Addr(ipv6) }
	var all []sequence
	for _, n := range numbers {
		o.sources++
		all = append(all, newSequence(*seed, n, o.sources, address))
	}
	o.sources++
	frames := append(interleave(rand.New(rand.NewPCG(*seed, uint64(numbers[0]))), all), o.last()...)
	receivers := []*receiver{o.kernel, o.box}
	for _, r := range receivers {
		hosts := r.network.Hosts
		must(o.T, r.tap.Send(lab.Between(hosts[verdict.Inside], hosts[verdict.Outside], frames...)...))
	}
	for _, r := range receivers {
		r.waitFor(o.T, o.sources)
	}
	var failures []failure
	for i := range all {
		if err := o.compare(&all[i]); err != nil {
			failures = append(failures, failure{all[i].number, err})
		}
	}
	return failures
}

// last returns the packets that mark the end, from the latest source. There is one per socket,
// because each socket has its own reader.
func (o *oracle) last() (frames [][]byte) {
	for _, protocol := range protocols {
		for _, ipv6 := range []bool{false, true} {
			to := o.box.network.Hosts[verdict.Outside].Addr(ipv6)
			last := packettest.Datagram{Src: sourceOf(o.sources, ipv6), Dst: to, Protocol: protocol, Payload: make([]byte, 24)}
			frames = append(frames, last.Frame())
		}
	}
	return frames
}

// interleave mixes the frames of groups of four sequences. The order within a sequence stays.
func interleave(r *rand.Rand, all []sequence) [][]byte {
	const together = 4
	var frames [][]byte
	for group := range slices.Chunk(all, together) {
		var left []*sequence
		at := map[*sequence]int{}
		for i := range group {
			left = append(left, &group[i])
		}
		for len(left) > 0 {
			i := r.IntN(len(left))
			s := left[i]
			frames = append(frames, s.pieces[at[s]].frame())
			if at[s]++; at[s] == len(s.pieces) {
				left = slices.Delete(left, i, i+1)
			}
		}
	}
	return frames
}

// compare compares the results of a sequence with the model and with each other.
func (o *oracle) compare(s *sequence) error {
	m := run(o.mode, *s)
	got, alone, want := o.box.from(s.src), o.kernel.from(s.src), sorted(m.delivered)
	o.box.forget(s.src)
	o.kernel.forget(s.src)
	switch {
	case !slices.Equal(got, want):
		return fmt.Errorf("behind the box: got %d datagrams, want %d:\n%s", len(got), len(want), s)
	case !slices.Equal(got, alone) && len(m.rules) == 0:
		return fmt.Errorf("got %d datagrams behind the box and %d without it, and no rule explains the difference:\n%s", len(got), len(alone), s)
	}
	o.delivered += len(got)
	if !slices.Equal(got, alone) {
		o.differ[strings.Join(slices.Sorted(maps.Keys(m.rules)), " and ")]++
	}
	return nil
}

// sorted returns the payloads as strings, sorted.
func sorted(payloads [][]byte) []string {
	var s []string
	for _, p := range payloads {
		s = append(s, string(p))
	}
	slices.Sort(s)
	return s
}

// String lists the pieces.
func (s *sequence) String() string {
	var b strings.Builder
	for _, p := range s.pieces {
		fmt.Fprintf(&b, "  id %d protocol %d [%d, %d) more=%v tos=%d corrupt=%v options=%d before=%d after=%d\n",
			p.ID, p.Protocol, p.offset, p.end(), p.more, p.tos, p.corrupt, len(p.Options), len(p.Before), len(p.After))
	}
	return b.String()
}
