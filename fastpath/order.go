package fastpath

import (
	"math"
	"sync/atomic"
	"time"
)

// orders are those whose difference of what went up and what left may be wrong, as
// long as nothing settles it: when an entry is made, frames are on their way that
// were not counted as they went up; and what user space drops never leaves.
type orders struct {
	unsettled []uint32   // slots
	pairs     []settling // of fragments, by their index
}

// settling is how far an order has come to a right difference.
type settling struct {
	since     uint64 // when the difference was found not to be 0, see monotonic; 0: it is
	corrected bool   // once, since then
}

// unsettled is a difference that no frame has made yet.
const unsettled = math.MaxInt32

// In nanoseconds:
const (
	// drain is how long nothing went up until nothing is on its way (DRAIN in
	// bpf/order.h).
	drain = uint64(250 * time.Millisecond)
	// window is how long the least difference is looked for.
	window = uint64(90 * time.Millisecond)
	// forcedFor is how long an order is free that nothing settled: longer than
	// drain, so that all is settled after it.
	forcedFor = uint64(300 * time.Millisecond)
)

func (o *orders) init(pairs int) { o.pairs = make([]settling, pairs) }

// watchOrder has the order of an entry settled at the next upkeeps.
func (f *FastPath) watchOrder(slot uint32) {
	if e := &f.entries.all[slot]; !e.pending {
		e.pending = true
		f.orders.unsettled = append(f.orders.unsettled, slot)
	}
}

// settleOrders brings the differences to what is on its way.
func (f *FastPath) settleOrders(now uint64) {
	kept := f.orders.unsettled[:0]
	for _, slot := range f.orders.unsettled {
		e := &f.entries.all[slot]
		settled := true
		for side := range e.ways {
			if !e.stopped && !e.ways[side].order.settle(&f.memory.slots[slot].Ways[side].Order, now) {
				settled = false
			}
		}
		if e.pending = !settled; e.pending {
			kept = append(kept, slot)
		}
	}
	f.orders.unsettled = kept
	for i := range f.orders.pairs {
		f.orders.pairs[i].settle(&f.memory.pairs[i], now)
	}
}

// settle corrects the difference of an order, and reports whether there is nothing
// more to correct.
//
// The least difference in a window is what got lost, or was not counted as it went
// up, if at any time of the window nothing was on its way. Where something always is,
// or gets lost all the time, the difference never comes to 0: then the order is freed
// for a while, and what is on its way at that time is overtaken.
func (s *settling) settle(o *programOrder, now uint64) bool {
	lastUp := atomic.LoadUint64(&o.LastUp)
	right := atomic.LoadUint32(&o.Calibrated) != 0 && atomic.LoadUint32(&o.Up) == atomic.LoadUint32(&o.Done)
	if right || now > lastUp && now-lastUp >= drain || now < atomic.LoadUint64(&o.Forced) {
		*s = settling{}
		return true
	}
	switch {
	case s.since == 0:
		s.since = now
		atomic.StoreInt32(&o.Least, unsettled)
	case now-s.since < window:
	case !s.corrected:
		s.corrected, s.since = true, now
		if least := atomic.SwapInt32(&o.Least, unsettled); least != unsettled {
			atomic.AddUint32(&o.Done, uint32(least))
			atomic.StoreUint32(&o.Calibrated, 1)
		}
	default:
		*s = settling{}
		atomic.StoreUint64(&o.Forced, now+forcedFor)
		return true
	}
	return false
}
