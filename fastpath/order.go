package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// orders are the orders that keep frames of flows from being forwarded, until they are settled.
// Frames that user space drops never leave it, so the number of frames that left may never
// reach the number of frames that were passed up.
type orders struct {
	unsettled []uint32 // slots
	// lent is set while the orders count the entries of another process, see claimOrders.
	lent bool
}

// settling records since when an order has had frames in user space at each upkeep, and how
// many frames had been passed up by then.
type settling struct {
	since uint64 // see monotonic; 0: no frame is in user space
	up    uint32
}

const (
	// mostOnTheWay is more frames than user space can have at a time, in the queue of a TAP
	// (5,120) and in a batch. If so many frames of a flow were passed up, and some were always
	// in user space, then the flow is faster than user space.
	mostOnTheWay = 8192
	// In nanoseconds:

	// drain is the time without a frame passed up after which no frame is in user space (DRAIN
	// in bpf/order.h).
	drain = uint64(250 * time.Millisecond)
	// sent is the time for which a fragment that has left the process may still be on its way
	// to the NIC (SENT in bpf/order.h).
	sent = uint64(10 * time.Millisecond)
	// patience is the time for which frames may be in user space at each upkeep, before some
	// are assumed to be lost.
	patience = uint64(2 * time.Second)
	// forcedFor is the time for which an order is then free, longer than drain, so that it is
	// settled afterwards.
	forcedFor = uint64(300 * time.Millisecond)
)

// own sets whether an entry uses its orders, so that they do not count flows without an entry.
// It does as long as the kernel has the key, so each frame of the flow that is passed up is
// counted in them. If another entry already uses an order, frames that were passed up before
// were not counted, and the flow waits for them.
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
		if on || entries == 0 { // frames in user space still count when the flow becomes unknown
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

// claimOrders makes orders that were lent count the entries of this process. The lanes have not
// started, or are held: frames that were passed up in the meantime are still in user space,
// however long ago that was, and even if an order was assumed to be empty.
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

// unsettleOrders resets all orders, because frames that they did not count may be in user
// space. While that is possible, no flow is in order.
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

// watchOrder makes the next upkeeps settle the order of an entry.
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

// settleWay settles the orders of one direction: that of its whole packets and, if the programs
// forward fragments, that of fragments. Otherwise whole packets always wait for fragments in
// user space.
func (f *FastPath) settleWay(slot uint32, side int, now uint64) bool {
	s, w := &f.memory.slots[slot], &f.entries.all[slot].ways[side]
	settled := w.packets.settle(&f.memory.orders[s.Order[side]], now, 0)
	if f.options.Mode == packet.ModeValidate && !w.fragments.settle(&f.memory.orders[s.Pair[side]], now, sent) {
		return false
	}
	return settled
}

// settle reports whether no frame is in user space and the last frame left the process at least
// quiet nanoseconds ago, or whether this is assumed from now on. It never becomes true by
// itself if a flow is too fast, if frames are lost all the time, or if a flow of fragments
// waits for each answer. Then the order is freed for a while, and later frames overtake those
// in user space.
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
