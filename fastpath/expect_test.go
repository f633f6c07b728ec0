package fastpath

import (
	"slices"
	"testing"
	"time"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestExpect checks that a flow which another fast path knew is forwarded from its second
// packet on, but not while frames that arrived before the first lesson are still in user space.
func TestExpect(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	before := newQueue(t, frame, 0)
	keys := before.Keys()
	if len(keys) != 1 {
		t.Fatalf("%d keys", len(keys))
	}
	q := &queue{rig: newRig(t, onlyPort53(), packet.ModeReassemble)}
	q.Expect(keys)
	q.Expect(keys)
	if n := q.Stats().Entries; n != 1 {
		t.Fatalf("%d entries", n)
	}
	for range 3 {
		if way := q.come(frame); way != passedUp {
			t.Fatalf("%v before the first lesson", way)
		}
	}
	q.fast.Forward(verdict.Inside, frameOf(frame), time.Now()) // counts as sent
	for range 2 {
		if way := q.come(frame); way != passedUp {
			t.Fatalf("%v, with %d in user space", way, len(q.frames))
		}
		q.leave(false)
	}
	for range 2 {
		q.leave(false)
	}
	if way := q.come(frame); way != forwarded {
		t.Errorf("%v, with none in user space: %+v", way, *q.order())
	}
}

// TestExpectMany expects as many flows as there is room for, more than the budget of flows that
// are learned between two upkeeps. The budget stays as it is.
func TestExpectMany(t *testing.T) {
	f := open(t, Options{Entries: 256})
	var keys []flow.Key
	for i := range uint64(300) {
		keys = append(keys, flow.Key{Inside: [2]uint64{i}, Ports: 53<<16 | packet.ProtocolUDP<<8})
	}
	budget := f.budget
	f.Expect(keys)
	if got := f.Keys(); !slices.Equal(got, keys[:256]) || f.budget != budget {
		t.Errorf("%d keys, a budget of %d, want %d", len(got), f.budget, budget)
	}
}

// TestOrderOutlivesEntry removes the entry of a flow whose frames are in user space, and learns
// the flow again. The frames still count.
func TestOrderOutlivesEntry(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	q := newQueue(t, frame, 0)
	order := q.order()
	order.Flow = 0 // as for a flow that was expected
	for range 3 {
		q.come(frame)
	}
	q.Yield(nil)
	q.mu.Lock()
	q.deleteRetired(monotonic())
	q.mu.Unlock()
	up, done := order.Up, order.Done
	q.come(frame)
	if order.Up != up+1 || order.Done != done {
		t.Errorf("%d of %d have left, want %d of %d", order.Done, order.Up, done, up+1)
	}
}
