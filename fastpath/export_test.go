package fastpath

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// loopback is the index of the loopback device of every namespace.
const loopback = 1

// attachIn attaches a fast path to the loopback device of a namespace, as both the NIC and the TAP
// of each side.
func attachIn(t *testing.T, ns *lab.Namespace, f *FastPath) {
	t.Helper()
	err := ns.Do(func() error {
		for side := range verdict.Side(verdict.Sides) {
			if err := f.Attach(side, loopback, loopback); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.memory.config.Uncounted = 0 // a while later
}

// attachedQueue returns a queue of a flow, whose programs are attached in a new namespace.
func attachedQueue(t *testing.T, frame []byte) (*queue, *lab.Namespace) {
	t.Helper()
	ns, err := lab.NewNamespace("fastpath")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	q := newQueue(t, frame, 0)
	attachIn(t, ns, q.FastPath)
	return q, ns
}

// attached returns the programs that are attached in a namespace, in the order in which they run.
func attached(t *testing.T, ns *lab.Namespace) (programs []ebpf.ProgramID) {
	t.Helper()
	err := ns.Do(func() error {
		result, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		for _, p := range result.Programs {
			programs = append(programs, p.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return programs
}

// own returns the programs of a fast path in the order in which it attaches them.
func own(t *testing.T, f *FastPath) (programs []ebpf.ProgramID) {
	t.Helper()
	for side := range verdict.Side(verdict.Sides) {
		for _, p := range f.programs(side) {
			info, err := p.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := info.ID()
			programs = append(programs, id)
		}
	}
	return programs
}

// handOver exports the fast path of a queue. It returns a queue with the same waiting frames,
// whose fast path was opened on the exported one.
func (q *queue) handOver(t *testing.T, policy *filter.Policy) *queue {
	t.Helper()
	e, err := q.Export()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return &queue{rig: newRigFrom(t, policy, packet.ModeReassemble, e), frames: q.frames}
}

// continueOn makes the programs of a fast path replace those of another process.
func (q *queue) continueOn(t *testing.T) {
	t.Helper()
	for side := range verdict.Side(verdict.Sides) {
		if err := q.Continue(side, loopback, loopback); err != nil {
			t.Fatal(err)
		}
	}
}

func passedOf(f *FastPath) (frames uint64) {
	s := f.Stats()
	for _, n := range s.Sides[verdict.Inside].Passed {
		frames += n
	}
	return frames
}

// long makes the last frame that was passed up so old that it would count as lost.
func (q *queue) long() { atomic.StoreUint64(&q.orderOfClient().LastUp, monotonic()-2*drain) }

// orderOfClient returns the order of the flow that all frames of a queue belong to, whether or not
// the flow has an entry.
func (q *queue) orderOfClient() *programOrder {
	k := flow.Key{Inside: words(client4.Addr()), Outside: words(server4.Addr()),
		Ports: uint64(client4.Port())<<32 | uint64(server4.Port())<<16 | packet.ProtocolUDP<<8}
	return &q.memory.orders[q.memory.orderOf(&k, verdict.Inside)]
}

// TestHandOver hands over a fast path while frames wait. One set of programs is attached at any
// time, each frame is counted once, and no frame overtakes the waiting ones. This also holds for a
// flow that the other process does not know, and if the other process fails after replacing the
// programs and the first one continues.
func TestHandOver(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	for _, test := range []struct{ knows, fails bool }{{true, false}, {false, false}, {true, true}} {
		ns, err := lab.NewNamespace("fastpath")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		q := newQueue(t, frame, 0)
		expectAttached := func() {
			t.Helper()
			if got, want := attached(t, ns), own(t, q.FastPath); !slices.Equal(got, want) {
				t.Fatalf("%+v: attached %v, want %v", test, got, want)
			}
		}
		attachIn(t, ns, q.FastPath)
		q.FastPath.own(1, false)
		q.order().Flow = 0
		q.FastPath.own(1, true)
		q.settle()
		if way := q.come(frame); way != forwarded {
			t.Fatal(way)
		}
		passed := passedOf(q.FastPath)
		expectPassed := func(way outcome) {
			t.Helper()
			if passed++; way != passedUp {
				t.Fatalf("%+v: %v, with %d on their way: %+v", test, way, len(q.frames), *q.orderOfClient())
			}
		}
		leave := func() {
			q.fast.Forward(verdict.Inside, frameOf(q.frames[0]), time.Now())
			q.frames = q.frames[1:]
		}

		first := q
		q.Suspend()
		atomic.StoreUint64(&q.order().Forced, monotonic()+uint64(time.Hour))
		for range 3 {
			expectPassed(q.come(frame))
		}
		next := q.handOver(t, onlyPort53())
		if test.knows {
			next.Expect(q.Keys())
		}
		q.Yield(nil)
		expectPassed(q.come(frame))
		expectAttached()
		q.long()
		next.frames, q = q.frames, next
		q.continueOn(t)
		expectAttached()
		if test.fails {
			first.frames, q = q.frames, first
			q.long()
			q.Resume()
			expectAttached()
			q.mu.Lock()
			q.deleteRetired(monotonic())
			q.mu.Unlock()
		}
		leave()
		leave()                                              // the flow is known from here on
		expectPassed(run(q, q.in(verdict.Inside), frame, 0)) // without come, which changes the time
		q.frames = append(q.frames, frame)
		for len(q.frames) > 1 {
			leave()
		}
		expectPassed(q.come(frame))
		leave()
		leave()
		if way := q.come(frame); way != forwarded {
			t.Errorf("%+v: %v with none on their way: %+v", test, way, *q.orderOfClient())
		}
		if got := passedOf(q.FastPath); got != passed {
			t.Errorf("%+v: %d frames passed up, want %d", test, got, passed)
		}
	}
}

// TestAttachHoldsOrder attaches the programs while user space has frames that they did not
// count. No flow is in order until those must have left.
func TestAttachHoldsOrder(t *testing.T) {
	ns, err := lab.NewNamespace("fastpath")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	q := newQueue(t, frame, 0)
	q.settle()
	if way := q.come(frame); way != forwarded {
		t.Fatal(way)
	}
	q.order().Up += 3 // frames that were passed up, and left or were lost while no program was attached
	attachIn(t, ns, q.FastPath)
	q.memory.config.Uncounted = monotonic() + uint64(time.Hour)
	if way := q.come(frame); way != passedUp {
		t.Errorf("%v with uncounted frames in user space", way)
	}
	q.leave(false)
	q.memory.config.Uncounted = 0
	if way := q.come(frame); way != forwarded {
		t.Errorf("%v a while later: %+v", way, *q.order())
	}
}

// TestHandOverVLANs takes over from a process whose policy distinguishes flows by VLAN, with a
// policy that does not. Other orders then count the flows, so no flow is in order for a while.
func TestHandOverVLANs(t *testing.T) {
	q, _ := attachedQueue(t, packettest.UDP(client4, server4, packettest.Body(64)).Frame())
	for _, any := range []bool{false, true} {
		policy := onlyPort53()
		policy.Stateful, policy.AnyVLANs = true, any
		next := q.handOver(t, policy)
		next.continueOn(t)
		if uncounted := next.memory.config.Uncounted != 0; uncounted != any {
			t.Errorf("any VLANs %v: frames may not be counted: %v", any, uncounted)
		}
	}
}

// TestExportFormat opens a fast path on an exported one of another format, whose state it must
// not continue.
func TestExportFormat(t *testing.T) {
	q := newQueue(t, packettest.UDP(client4, server4, packettest.Body(64)).Frame(), 0)
	before := passedOf(q.FastPath)
	e, err := q.Export()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.Format++
	next := open(t, Options{From: e})
	if n := passedOf(next); n != 0 || before == 0 {
		t.Errorf("%d frames were passed up, before %d", n, before)
	}
	if err := next.Continue(verdict.Inside, loopback, loopback); err == nil {
		t.Error("the fast path continues one of another format")
	}
	s := q.Stats()
	next.ContinueCounts(&s)
	if n, left := passedOf(next), s.Sides[verdict.Inside].Passed; n != before || left != [Reasons]uint64{} {
		t.Errorf("%d frames were passed up, want %d; %v are left", n, before, left)
	}
}

// TestDetachWhileExported detaches the programs of a side while another process has descriptors of
// their links, as when a NIC is replaced during a hand-over. The programs can be attached again. The
// other process, which does not take over, detaches nothing, and neither does this one once the
// other could have taken over.
func TestDetachWhileExported(t *testing.T) {
	q, ns := attachedQueue(t, packettest.UDP(client4, server4, packettest.Body(64)).Frame())
	other := q.handOver(t, onlyPort53())
	if err := other.FastPath.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := attached(t, ns), own(t, q.FastPath); !slices.Equal(got, want) {
		t.Errorf("programs %v are attached, want %v", got, want)
	}
	other = q.handOver(t, onlyPort53())
	q.Detach(verdict.Inside)
	q.Detach(verdict.Outside)
	if got := attached(t, ns); len(got) > 0 {
		t.Errorf("programs %v are attached, want none", got)
	}
	attachIn(t, ns, q.FastPath)
	if err := other.FastPath.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := attached(t, ns), own(t, q.FastPath); !slices.Equal(got, want) {
		t.Errorf("programs %v are attached again, want %v", got, want)
	}
	other = q.handOver(t, onlyPort53())
	q.Suspend()
	other.continueOn(t)
	if err := q.FastPath.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := attached(t, ns), own(t, other.FastPath); !slices.Equal(got, want) {
		t.Errorf("programs %v are attached after the take-over, want %v", got, want)
	}
}
