package fastpath

import (
	"time"

	"fragwall/packet"
)

// Upkeep is called every 100 ms. It removes stopped entries, frees slots that have been unused
// long enough, makes room when slots run out, and settles the order of frames.
func (f *FastPath) Upkeep(time.Time) {
	now := monotonic()
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.freeRested(now)
	f.deleteRetired(now)
	f.settleOrders(now)
	if f.options.Mode == packet.ModeValidate {
		f.freeFragments(now)
	}
	f.budget = f.perUpkeep()
	idle := f.idleEntries(now)
	f.mu.Unlock()
	f.takeAway(idle)
}
