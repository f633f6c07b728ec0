package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/checksum"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a fast path whose egress on both sides is the loopback device. The kernel runs the
// programs by BPF_PROG_TEST_RUN, which does not redirect. Users without the right to load
// programs skip the test, except in CI.
func open(t testing.TB, o Options) *FastPath {
	t.Helper()
	if o.TimeoutIPv4 == 0 {
		o.TimeoutIPv4, o.TimeoutIPv6, o.MaxFragments = 30*time.Second, 60*time.Second, 8192
	}
	if o.Entries == 0 {
		o.Entries = 1024
	}
	f, err := Open(o)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		if os.Getenv("CI") == "" {
			t.Skip(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	for side := range verdict.Side(verdict.Sides) {
		f.SetMTU(side, 1500)
		f.SetEgress(side, true)
		f.memory.config.Egress[side] = 1
	}
	return f
}

// outcome is the result of a program.
type outcome uint32

const (
	passedUp  outcome = 1<<32 - 1 // TCX_NEXT
	dropped   outcome = 2         // TCX_DROP
	forwarded outcome = 7         // TCX_REDIRECT
)

func (f outcome) String() string {
	switch f {
	case passedUp:
		return "passed up"
	case dropped:
		return "dropped"
	case forwarded:
		return "forwarded"
	}
	return "unknown"
}

// context has the fields of a frame that a test may set in addition to its bytes (struct
// __sk_buff).
type context struct {
	_       [41]uint32
	GSOSegs uint32
	_       [2]uint32
	GSOSize uint32
	_       [3]uint32
}

// runnable reports whether the kernel can run a test program on a frame. The frame must have
// its network header, and must fit a page together with the kernel's own data.
func runnable(frame []byte) bool {
	const longest = 3500
	least := packet.SizeEthernet
	switch binary.BigEndian.Uint16(frame[12:]) {
	case packet.EtherTypeIPv4:
		least += packet.SizeIPv4
	case packet.EtherTypeIPv6:
		least += packet.SizeIPv6
	}
	return len(frame) > least && len(frame) <= longest
}

func run(t testing.TB, p *ebpf.Program, frame []byte, segment uint16) outcome {
	t.Helper()
	o := ebpf.RunOptions{Data: frame}
	if segment > 0 {
		o.Context = &context{GSOSize: uint32(segment), GSOSegs: uint32(len(frame)/int(segment)) + 1}
	}
	result, err := p.Run(&o)
	if errors.Is(err, unix.EINVAL) && !runnable(frame) {
		return passedUp
	}
	if err != nil {
		t.Fatalf("%d bytes: %v", len(frame), err)
	}
	return outcome(result)
}

func (f *FastPath) in(side verdict.Side) *ebpf.Program {
	if side == verdict.Outside {
		return f.objects.FromOutside
	}
	return f.objects.FromInside
}

func (f *FastPath) out(side verdict.Side) *ebpf.Program {
	if side == verdict.Outside {
		return f.objects.ToOutside
	}
	return f.objects.ToInside
}

// rig is a wire with a fast path, and a wire without. Each frame must have the same result on
// both.
type rig struct {
	testing.TB
	*FastPath
	fast, plain *wire.Stepper
	left        [2][][]byte // frames that left fast and plain, in order
	ways        map[outcome]int
}

func limits() stack.Options {
	return stack.Options{TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
		Memory: 64 << 20, MaxFragments: 8192, MaxDatagrams: 65536}
}

func newRig(t testing.TB, policy *filter.Policy, mode packet.Mode) *rig {
	t.Helper()
	return newRigFrom(t, policy, mode, nil)
}

// newRigFrom returns a rig whose fast path is opened on that of another process.
func newRigFrom(t testing.TB, policy *filter.Policy, mode packet.Mode, from *Exported) *rig {
	t.Helper()
	r := &rig{TB: t, FastPath: open(t, Options{Mode: mode, Drops: DropSilently, From: from}), ways: map[outcome]int{}}
	config := func(index int) wire.Config {
		c := wire.Config{Policy: policy, Mode: mode, Fragments: limits()}
		for side := range verdict.Side(verdict.Sides) {
			c.Sides[side] = wire.SideConfig{MTU: 1500, Lanes: []tun.Lane{tuntest.Sink(func(frames []tun.Frame) (int, error) {
				for _, f := range frames {
					r.left[index] = append(r.left[index], slices.Clone(f.Data))
					if index == 0 {
						run(t, r.out(side.Other()), f.Data, 0)
					}
				}
				return 0, nil
			})}}
		}
		return c
	}
	c := config(0)
	c.FastPath = r.FastPath
	r.fast, r.plain = wire.NewStepper(c), wire.NewStepper(config(1))
	t.Cleanup(func() { r.fast.Close(); r.plain.Close() })
	return r
}

// settle makes all orders settled, as time does.
func (r *rig) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.memory.orders {
		calm(&r.memory.orders[i])
	}
}

func calm(o *programOrder) {
	atomic.StoreUint32(&o.Done, atomic.LoadUint32(&o.Up))
	atomic.StoreUint64(&o.LastDone, 0)
}

// send has a frame arrive on both wires, and returns the program's result.
func (r *rig) send(from verdict.Side, frame []byte) outcome {
	r.Helper()
	now := time.Now()
	before := [2]int{len(r.left[0]), len(r.left[1])}
	r.plain.Forward(from, tun.Frame{Data: slices.Clone(frame)}, now)
	way := run(r, r.in(from), frame, 0)
	r.ways[way]++
	switch way {
	case passedUp:
		r.fast.Forward(from, tun.Frame{Data: slices.Clone(frame)}, now)
	case forwarded:
		r.left[0] = append(r.left[0], slices.Clone(frame))
	}
	fast, plain := r.left[0][before[0]:], r.left[1][before[1]:]
	if !slices.EqualFunc(fast, plain, bytes.Equal) {
		r.Fatalf("%v from the %v: %d frames left, without the fast path %d\n% x", way, from, len(fast), len(plain), frame)
	}
	return way
}

// agree compares all counters of both wires.
func (r *rig) agree() {
	r.Helper()
	for side := range verdict.Side(verdict.Sides) {
		fast, plain := r.fast.Counters(side), r.plain.Counters(side)
		if fast != plain {
			r.Errorf("counters of the %v\n%+v\nwithout the fast path\n%+v", side, fast, plain)
		}
	}
	fast, plain := r.fast.Policy(), r.plain.Policy()
	for i := range fast.Policy().Rules {
		if fast.Count(i) != plain.Count(i) {
			r.Errorf("rule %q counts %+v, without the fast path %+v", fast.Policy().Rules[i].Name, fast.Count(i), plain.Count(i))
		}
	}
}

var (
	client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 53)
)

var families = map[string]struct{ client, server netip.AddrPort }{"ipv4": {client4, server4}, "ipv6": {client6, server6}}

// onlyPort53 accepts datagrams to or from port 53.
func onlyPort53() *filter.Policy {
	port := filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})
	return &filter.Policy{ARP: verdict.Accept, Rules: []filter.Rule{
		{Name: "requests", Action: verdict.Accept, DstPorts: port},
		{Name: "replies", Action: verdict.Accept, SrcPorts: port},
		{Name: "denied", Action: verdict.Drop, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 22, Hi: 22})},
	}}
}

func stateful(p *filter.Policy) *filter.Policy {
	p.Stateful = true
	return p
}

func addUp(b []byte, sum uint16) uint16 { return checksum.Sum(b, sum) }

func pseudoSum(src, dst netip.Addr, protocol uint8, length int) uint16 {
	return checksum.PseudoHeader(src, dst, protocol, length)
}

func netipPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

func frameOf(b []byte) tun.Frame { return tun.Frame{Data: slices.Clone(b)} }
