package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// orders are those of flows whose frames go up for the sake of order, until it is
// settled. What user space drops never leaves it, so that what went up and what left
// may never be as much.
type orders struct {
	unsettled []uint32 // slots
	// lent is set while the orders count the entries of another process, see claimOrders.
	lent bool
}

// settling is since when an order was found to have frames on their way at each
// upkeep, and how many had gone up by then.
type settling struct {
	since uint64 // see monotonic; 0: it has none
	up    uint32
}

const (
	// mostOnTheWay is more frames than can be on their way at a time, in the queue of a
	// TAP (5,120) and in a batch: a flow of which as many went up, and some were on
	// their way all the time, comes faster than user space takes it.
	mostOnTheWay = 8192
	// In nanoseconds:

	// drain is how long nothing went up until nothing is on its way (DRAIN in
	// bpf/order.h).
	drain = uint64(250 * time.Millisecond)
	// sent is how long after it left the process a fragment may be on its way to the NIC
	// (SENT in bpf/order.h).
	sent = uint64(10 * time.Millisecond)
	// patience is how long frames may be on their way at each upkeep, until it is
	// taken that some are lost.
	patience = uint64(2 * time.Second)
	// forcedFor is how long an order is free then: longer than drain, so that all is
	// settled after it.
	forcedFor = uint64(300 * time.Millisecond)
)

// own says whether the orders of an entry are its own, and do not count flows without an
// entry. They are as long as the kernel has the key: so what goes up of the flow counts
// by them at any time. Where another entry has an order already, what went up before did
// not count, and is waited for.
func (f *FastPath) own(slot uint32, on bool) {
	e := &f.entries.all[slot]
	if e.ordered == on {
		return
	}
	e.ordered = on
	n := uint32(1)
	if !on {
		n = ^uint32(0)
	}
	if f.orders.lent {
		return
	}
	s := &f.memory.slots[slot]
	for side, index := range s.Order {
		o := &f.memory.orders[index]
		entries := atomic.AddUint32(&o.Entries, n)
		if on && entries > 1 {
			atomic.StoreUint64(&s.Ways[side].Held, monotonic()+drain)
		}
		if on || entries == 0 { // what is on its way still counts when the flow is unknown
			atomic.StoreUint32(&o.Flow, f.memory.orderHash(&e.key, verdict.Side(side)))
		}
	}
}

// lendOrders leaves the orders to another process.
func (f *FastPath) lendOrders() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders.lent = true
}

// claimOrders makes orders that were lent those of this process's entries. The lanes have not
// started, or have been held: what went up in the meantime is still on its way, however long ago
// that was, and also where it was assumed that nothing is.
func (f *FastPath) claimOrders() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.orders.lent {
		return
	}
	f.orders.lent = false
	entries := make([]uint32, len(f.memory.orders))
	for _, slot := range f.used {
		if f.entries.all[slot].ordered {
			for _, index := range f.memory.slots[slot].Order {
				entries[index]++
			}
		}
	}
	now := monotonic()
	for i, n := range entries {
		o := &f.memory.orders[i]
		atomic.StoreUint32(&o.Entries, n)
		atomic.StoreUint64(&o.Forced, 0)
		if atomic.LoadUint32(&o.Up) != atomic.LoadUint32(&o.Done) {
			atomic.StoreUint64(&o.LastUp, now)
		}
	}
}

// unsettleOrders begins all orders anew, because frames that they did not count may be on their way:
// for as long as that may be so, nothing is in order.
func (f *FastPath) unsettleOrders() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.orders.lent {
		return
	}
	atomic.StoreUint64(&f.memory.config.Uncounted, monotonic()+drain)
	for i := range f.memory.orders {
		o := &f.memory.orders[i]
		atomic.StoreUint32(&o.Done, atomic.LoadUint32(&o.Up))
	}
}

// watchOrder has the order of an entry settled at the next upkeeps.
func (f *FastPath) watchOrder(slot uint32) {
	if e := &f.entries.all[slot]; !e.pending {
		e.pending = true
		f.orders.unsettled = append(f.orders.unsettled, slot)
	}
}

// settleOrders frees orders whose frames are lost.
func (f *FastPath) settleOrders(now uint64) {
	kept := f.orders.unsettled[:0]
	for _, slot := range f.orders.unsettled {
		e := &f.entries.all[slot]
		settled := true
		for side := range e.ways {
			if !e.stopped && !f.settleWay(slot, side, now) {
				settled = false
			}
		}
		if e.pending = !settled; e.pending {
			kept = append(kept, slot)
		}
	}
	f.orders.unsettled = kept
}

// settleWay settles the orders of one direction: of its whole packets and, where the
// programs forward fragments, of those. Elsewhere whole packets always wait for
// fragments that are on their way.
func (f *FastPath) settleWay(slot uint32, side int, now uint64) bool {
	s, w := &f.memory.slots[slot], &f.entries.all[slot].ways[side]
	settled := w.packets.settle(&f.memory.orders[s.Order[side]], now, 0)
	if f.options.Mode == packet.ModeValidate && !w.fragments.settle(&f.memory.orders[s.Pair[side]], now, sent) {
		return false
	}
	return settled
}

// settle reports whether nothing is on its way, and the last frame left the process at least
// quiet nanoseconds ago, or whether this is assumed from now on. If a flow is too fast, if
// frames are lost all the time, or if a flow of fragments waits for each answer, this never
// becomes true by itself. Then the order is freed for a while, and what is on its way at that
// time is overtaken.
func (s *settling) settle(o *programOrder, now, quiet uint64) bool {
	lastUp, up := atomic.LoadUint64(&o.LastUp), atomic.LoadUint32(&o.Up)
	gone := up == atomic.LoadUint32(&o.Done) && now-min(now, atomic.LoadUint64(&o.LastDone)) >= quiet
	if gone || now > lastUp && now-lastUp >= drain || now < atomic.LoadUint64(&o.Forced) {
		*s = settling{}
		return true
	}
	if s.since == 0 {
		*s = settling{now, up}
		return false
	}
	if up-s.up <= mostOnTheWay && now-s.since < patience {
		return false
	}
	*s = settling{}
	atomic.StoreUint64(&o.Forced, now+forcedFor)
	return true
}
