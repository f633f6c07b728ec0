package fastpath

import (
	"time"

	"fragwall/packet"
)

// Upkeep is called every 100 ms. It removes the entries that were stopped, frees what
// has rested, makes room where slots run out, and settles order.
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
