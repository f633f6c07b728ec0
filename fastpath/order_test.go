package fastpath

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// queue is user space with its frames: those that were passed up, in order.
type queue struct {
	*rig
	frames [][]byte
}

// come has a frame arrive. If it is passed up, it waits in the queue.
func (q *queue) come(frame []byte) outcome {
	// Even if the test pauses, no order counts as drained.
	atomic.StoreUint64(&q.order().LastUp, monotonic()+uint64(time.Hour))
	way := run(q, q.in(verdict.Inside), frame, 0)
	if way == passedUp {
		q.frames = append(q.frames, frame)
	}
	return way
}

// leave sends the first frame of the queue out of user space, or loses it.
func (q *queue) leave(lost bool) {
	if !lost {
		run(q, q.out(verdict.Outside), q.frames[0], 0)
	}
	q.frames = q.frames[1:]
}

// newQueue returns a queue with n frames that were passed up before their flow was learned.
func newQueue(t *testing.T, frame []byte, n int) *queue {
	q := &queue{rig: newRig(t, onlyPort53(), packet.ModeReassemble)}
	for range n {
		run(q, q.in(verdict.Inside), frame, 0)
		q.frames = append(q.frames, frame)
	}
	for range 2 {
		run(q, q.in(verdict.Inside), frame, 0)
		q.fast.Forward(verdict.Inside, frameOf(frame), time.Now())
	}
	return q
}

func (q *queue) order() *programOrder { return &q.memory.orders[q.memory.slots[1].Order[0]] }

// TestOrder checks that a frame is forwarded only while no frame of its flow is in user space,
// however many frames were there when the entry was made, and however many get lost. After a
// pause it is always forwarded.
func TestOrder(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 3))
		q := newQueue(t, frame, r.IntN(5))
		forwards, lost := 0, 0
		for step := range 400 {
			switch {
			case len(q.frames) > 0 && r.IntN(2) == 0:
				l := r.IntN(30) == 0
				if q.leave(l); l {
					lost++
				}
			case q.come(frame) == forwarded:
				if forwards++; len(q.frames) > 0 {
					t.Fatalf("seed %d, step %d: forwarded with %d frames in user space", seed, step, len(q.frames))
				}
			}
			if step%50 == 49 { // sometimes nothing is in user space
				for len(q.frames) > 0 {
					q.leave(false)
				}
				atomic.StoreUint64(&q.order().LastUp, monotonic()-2*drain)
				if way := run(q, q.in(verdict.Inside), frame, 0); way != forwarded {
					t.Fatalf("seed %d, step %d: %v after a pause: %+v", seed, step, way, *q.order())
				}
			}
		}
		if forwards == 0 {
			t.Errorf("seed %d: nothing was forwarded, with %d lost: %+v", seed, lost, *q.order())
		}
		_ = q.Close()
	}
}

// TestOrderIsForced checks that a flow which always has frames in user space is forwarded after
// some upkeeps.
func TestOrderIsForced(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	q := newQueue(t, frame, 3)
	for upkeep := range 30 {
		for range 10 {
			q.come(frame)
			q.come(frame)
			if len(q.frames) > 3 {
				q.leave(false)
				q.leave(true)
			}
		}
		q.mu.Lock()
		q.watchOrder(1)
		q.mu.Unlock()
		// The program's clock cannot be moved forward, so the order is free now.
		at := monotonic() + uint64(upkeep)*uint64(100*time.Millisecond)
		atomic.StoreUint64(&q.order().LastUp, at)
		q.mu.Lock()
		q.settleOrders(at)
		q.mu.Unlock()
		if q.order().Forced != 0 {
			if way := q.come(frame); way != forwarded {
				t.Error(way)
			}
			return
		}
	}
	t.Errorf("it is not forwarded: %+v", *q.order())
}

// TestOrderOfFragmentsIsForced checks that, in mode validate, fragments are forwarded after
// some upkeeps even if there are always some in user space. In mode reassemble, whole packets
// wait for fragments.
func TestOrderOfFragmentsIsForced(t *testing.T) {
	for mode, want := range map[packet.Mode]bool{packet.ModeValidate: true, packet.ModeReassemble: false} {
		d := packettest.UDP(client4, server4, packettest.Body(2000))
		next := func() [][]byte {
			d.ID++
			return d.Fragments(1400)
		}
		q := &queue{rig: newRig(t, onlyPort53(), mode)}
		whole := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
		for range 2 {
			run(q, q.in(verdict.Inside), whole, 0)
			q.fast.Forward(verdict.Inside, frameOf(whole), time.Now())
		}
		for _, f := range next() {
			run(q, q.in(verdict.Inside), f, 0)
			q.fast.Forward(verdict.Inside, frameOf(f), time.Now())
		}
		order := &q.memory.orders[q.memory.slots[1].Pair[0]]
		for upkeep := range 30 {
			for _, f := range next() {
				atomic.StoreUint64(&order.LastUp, monotonic()+uint64(time.Hour))
				run(q, q.in(verdict.Inside), f, 0)
			}
			run(q, q.out(verdict.Outside), next()[0], 0)
			at := monotonic() + uint64(upkeep)*uint64(100*time.Millisecond)
			atomic.StoreUint64(&order.LastUp, at)
			q.mu.Lock()
			q.watchOrder(1)
			q.settleOrders(at)
			q.mu.Unlock()
		}
		if forced := order.Forced != 0; forced != want {
			t.Errorf("%v: forced: %v", mode, forced)
		}
		if want {
			if way := run(q, q.in(verdict.Inside), next()[0], 0); way != forwarded {
				t.Errorf("%v: %v", mode, way)
			}
		}
		_ = q.Close()
	}
}

// TestOrderInFlood has flows without an entry, whose frames are dropped and so never leave user
// space. They do not keep other flows from being forwarded, neither before nor after these get
// an entry.
func TestOrderInFlood(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	q := newQueue(t, frame, 0)
	q.settle()
	if way := q.come(frame); way != forwarded {
		t.Fatal(way)
	}
	flood := sharingOrder(q)
	for i, spoofed := range flood {
		if q.come(spoofed) == forwarded {
			t.Fatal("an unknown flow is forwarded")
		}
		if way := q.come(frame); way != forwarded {
			t.Fatalf("%v after %d unknown flows: %+v", way, i+1, *q.order())
		}
	}
	q.takeAway([]uint32{1})
	q.mu.Lock()
	q.deleteRetired(monotonic())
	q.freeRested(monotonic() + rest)
	q.mu.Unlock()
	o := q.order()
	if o.Entries != 0 {
		t.Errorf("an order without an entry has %d entries", o.Entries)
	}
	q.frames = nil
	for _, spoofed := range flood {
		q.come(spoofed)
	}
	q.frames = nil
	for range 3 {
		if q.come(frame) == passedUp {
			q.fast.Forward(verdict.Inside, frameOf(frame), time.Now())
		}
	}
	if way := q.come(frame); way != forwarded {
		t.Errorf("a new flow is %v in a flood: %+v", way, *o)
	}
}

// sharingOrder returns packets of flows that share the order of a queue's flow.
func sharingOrder(q *queue) (frames [][]byte) {
	for i := range uint32(1 << 20) {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(1024+i>>16))
		k := flow.Key{Inside: words(src.Addr()), Outside: words(server4.Addr()), Ports: uint64(src.Port())<<32 | 53<<16 | packet.ProtocolUDP<<8}
		if q.memory.orderOf(&k, verdict.Inside) == q.memory.slots[1].Order[0] {
			frames = append(frames, packettest.UDP(src, server4, packettest.Body(64)).Frame())
		}
	}
	if len(frames) < 5 {
		q.Fatalf("%d other flows have the order", len(frames))
	}
	return frames
}

// TestOrderIsShared has two flows that share an order. Frames of the second that were passed up
// before it had an entry were not counted. They are not overtaken either.
func TestOrderIsShared(t *testing.T) {
	q := newQueue(t, packettest.UDP(client4, server4, packettest.Body(64)).Frame(), 0)
	q.settle()
	other := sharingOrder(q)[0]
	q.come(other)
	for range 2 {
		run(q, q.in(verdict.Inside), other, 0)
		q.fast.Forward(verdict.Inside, frameOf(other), time.Now())
	}
	if way := q.come(other); way != passedUp {
		t.Fatalf("%v, with one in user space", way)
	}
	q.leave(false)
	q.leave(false)
	q.memory.slots[2].Ways[verdict.Inside].Held = 0 // a while later
	if way := q.come(other); way != forwarded {
		t.Errorf("%v, with none in user space: %+v", way, *q.order())
	}
}

// TestOrderOfAnsweredFragments has a flow of fragments that waits for each answer. At each
// upkeep, all have left the process, but not long enough ago. They are forwarded after some
// upkeeps, as those of a flow that never waits.
func TestOrderOfAnsweredFragments(t *testing.T) {
	const step = uint64(100 * time.Millisecond)
	for _, test := range []struct {
		quiet, since uint64 // since the last frame left, in ns
		forced       bool
	}{
		{sent, uint64(time.Millisecond), true},
		{sent, sent, false},
		{0, 0, false},
	} {
		var s settling
		o := programOrder{Up: 7, Done: 7}
		for now := step; now < 2*patience && o.Forced == 0; now += step {
			o.LastUp, o.LastDone = now-test.since, now-test.since
			settled := s.settle(&o, now, test.quiet)
			if want := !test.forced || o.Forced != 0; settled != want {
				t.Fatalf("%+v at %v: settled: %v", test, time.Duration(now), settled)
			}
		}
		if forced := o.Forced != 0; forced != test.forced {
			t.Errorf("%+v: forced: %v", test, forced)
		}
	}
}
