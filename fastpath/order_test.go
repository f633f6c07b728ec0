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

// queue is user space with frames on their way: what went up, in order.
type queue struct {
	*rig
	frames [][]byte
}

// come has a frame come in, which waits in the queue where it goes up.
func (q *queue) come(frame []byte) fate {
	// However long the test was not running, nothing has drained meanwhile.
	atomic.StoreUint64(&q.order().LastUp, monotonic()+uint64(time.Hour))
	way := run(q, q.in(verdict.Inside), frame, 0)
	if way == passedUp {
		q.frames = append(q.frames, frame)
	}
	return way
}

// leave has the first frame of the queue leave user space; lost, it never does.
func (q *queue) leave(lost bool) {
	if !lost {
		run(q, q.out(verdict.Outside), q.frames[0], 0)
	}
	q.frames = q.frames[1:]
}

// newQueue returns one whose flow is known, with n frames on their way that went up
// before it was.
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

// TestOrder: however many frames were on their way when the entry was made, and however
// many get lost, a frame is forwarded only while none of its flow is on its way, and is
// where nothing went up for a while.
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
					t.Fatalf("seed %d, step %d: forwarded with %d frames on their way", seed, step, len(q.frames))
				}
			}
			if step%50 == 49 { // nothing is on its way, at times
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

// TestOrderIsForced: a flow of which something always is on its way is forwarded all the
// same, after some upkeeps.
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
		// The program's clock can't be turned forward, so the order is free now.
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
	t.Errorf("it is not: %+v", *q.order())
}

// TestOrderOfFragmentsIsForced: fragments of which some always are on their way are
// forwarded all the same after some upkeeps, where the mode is validate. Where they are
// to be put together, whole packets wait for them.
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

// TestOrderInFlood: flows without an entry, which are dropped and so never leave user
// space, do not keep others from being forwarded, before or after those get an entry.
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
		t.Errorf("an order without an entry has %d", o.Entries)
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

// sharingOrder returns packets of flows that share the order of a queue's.
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

// TestOrderIsShared: what went up of a flow before it had an entry did not count where
// another one has its order. Nothing of it is overtaken all the same.
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
		t.Fatalf("%v, with one on its way", way)
	}
	q.leave(false)
	q.leave(false)
	q.memory.slots[2].Ways[verdict.Inside].Held = 0 // a while later
	if way := q.come(other); way != forwarded {
		t.Errorf("%v, with none on its way: %+v", way, *q.order())
	}
}

// TestOrderOfAnsweredFragments: fragments of a flow that waits for each answer have all left
// the process at each upkeep, but never long enough ago. They are forwarded after some
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
