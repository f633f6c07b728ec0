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

// TestExpect: a flow that another fast path knew is forwarded from its second packet on,
// and not while frames are on their way that came before the first was learnt.
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
			t.Fatalf("%v before anything was learnt", way)
		}
	}
	q.fast.Forward(verdict.Inside, frameOf(frame), time.Now()) // which counts as left
	for range 2 {
		if way := q.come(frame); way != passedUp {
			t.Fatalf("%v, with %d on their way", way, len(q.frames))
		}
		q.leave(false)
	}
	for range 2 {
		q.leave(false)
	}
	if way := q.come(frame); way != forwarded {
		t.Errorf("%v, with none on its way: %+v", way, *q.order())
	}
}

// TestExpectMany: as many flows are expected as there is room for, whatever the limit of
// those that are learnt at a time, which stays as it is.
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

// TestOrderOutlivesEntry: what is on its way of a flow whose entry is taken away counts
// still when the flow is learnt again.
func TestOrderOutlivesEntry(t *testing.T) {
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	q := newQueue(t, frame, 0)
	order := q.order()
	order.Flow = 0 // as of a flow that was expected
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
		t.Errorf("%d have left of %d, want %d of %d", order.Done, order.Up, done, up+1)
	}
}
