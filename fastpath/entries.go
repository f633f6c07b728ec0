package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// entries are the flows that the programs know. The kernel's map has the keys and the slot
// numbers; everything else about a flow is in its slot. An entry that is not needed is stopped
// at once: its slot says so, and frames of the flow are passed up. Its key is deleted later.
// Then the slot rests until no program can still use a reference to it.
type entries struct {
	index map[flow.Key]uint32 // slots of the keys that the kernel has or is about to get
	all   []entry             // by slot; 0 is unused
	limit int                 // on entries
	used  []uint32            // slots that are not free
	free  []uint32
	// retired are stopped entries whose keys must be deleted. resting are those whose keys were
	// deleted.
	retired []uint32
	resting []resting
	hand    int // where the search for idle entries continues in used
	budget  int // number of entries that may be made before the next upkeep

	loaded [][verdict.Sides]tally // by slot: the counts that the flow table has loaded; guarded by its lock
}

// entry is what user space knows about a slot.
type entry struct {
	key     flow.Key
	at      int // index in used; -1 if the slot is free
	stopped bool
	pending bool   // in orders.unsettled
	ordered bool   // it is counted among the entries of its orders
	learned int    // number of goroutines that are learning it: key and slot must stay
	begun   uint64 // see monotonic
	ways    [verdict.Sides]entryWay
}

// entryWay is one direction of an entry.
type entryWay struct {
	denies    bool // the entry drops in this direction, or is about to
	decided   bool // the following fields are set
	action    verdict.Action
	reason    verdict.Reason
	rule      verdict.Rule
	counter   *filter.Counter // of the rule; nil if there is none
	tracking  programWayFlag  // flags for TCP
	counted   tally
	packets   settling // the order of whole packets
	fragments settling // the order of fragments
}

// tally is the counts of a way.
type tally struct{ frames, frameBytes, datagrams, datagramBytes uint64 }

// resting is a slot whose key was deleted.
type resting struct {
	slot uint32
	at   uint64 // when the key was deleted, see monotonic
}

// rest is the time that a slot rests, longer than any program runs.
const rest = uint64(time.Second)

func (e *entries) init(limit int) {
	e.limit = limit
	e.index = map[flow.Key]uint32{}
	e.all = make([]entry, 1)
	e.loaded = make([][verdict.Sides]tally, limit+1)
	e.budget = e.perUpkeep()
}

// perUpkeep returns the maximum number of entries that are made between two upkeeps: one eighth
// of all per second. Each takes a system call.
func (e *entries) perUpkeep() int { return max(e.limit/80, 16) }

// begin makes an entry, which decides nothing yet. It returns 0 if there is no slot.
func (f *FastPath) begin(k *flow.Key) uint32 {
	e := &f.entries
	var slot uint32
	switch n := len(e.free); {
	case n > 0:
		slot, e.free = e.free[n-1], e.free[:n-1]
	case len(e.all) <= e.limit:
		slot = uint32(len(e.all))
		e.all = append(e.all, entry{})
	default:
		return 0
	}
	e.index[*k] = slot
	e.all[slot] = entry{key: *k, at: len(e.used), begun: monotonic()}
	e.used = append(e.used, slot)
	e.loaded[slot] = [verdict.Sides]tally{}
	f.memory.clear(slot, k)
	return slot
}

// clear assigns a slot, which no program uses, to a flow.
func (m *memory) clear(slot uint32, k *flow.Key) {
	s := &m.slots[slot]
	*s = programSlot{Epoch: s.Epoch + 1}
	now := monotonic()
	for side := range verdict.Side(verdict.Sides) {
		s.Order[side], s.Pair[side] = m.orderOf(k, side), m.pairOf(k, side)
		s.Ways[side].Seen = now
	}
}

// stop makes the programs pass up the frames of a slot's flow from now on.
func (m *memory) stop(slot uint32) {
	for side := range m.slots[slot].Flags {
		atomic.SwapUint32(&m.slots[slot].Flags[side], 0)
	}
}

// retire stops an entry. The next upkeep removes it.
func (f *FastPath) retire(slot uint32) {
	e := &f.entries.all[slot]
	if e.at < 0 || e.stopped {
		return
	}
	f.memory.stop(slot)
	e.stopped = true
	for side := range e.ways {
		f.setDenies(&e.ways[side], false)
	}
	f.retired = append(f.retired, slot)
}

// setDenies sets whether a way drops, and keeps the number of ways that do.
func (f *FastPath) setDenies(w *entryWay, denies bool) {
	switch {
	case denies && !w.denies:
		f.denied.Add(1)
	case !denies && w.denies:
		f.denied.Add(-1)
	}
	w.denies = denies
}

// deleteRetired deletes the keys of the stopped entries. An entry keeps its slot if the kernel
// fails to delete the key, or if a goroutine is about to enter the key.
func (f *FastPath) deleteRetired(now uint64) {
	kept := f.retired[:0]
	for _, slot := range f.retired {
		if f.entries.all[slot].learned > 0 {
			kept = append(kept, slot)
			continue
		}
		f.own(slot, false)
		if err := f.deleteKey(&f.entries.all[slot].key); err != nil {
			f.mapErrors.Add(1)
			kept = append(kept, slot)
			continue
		}
		delete(f.index, f.entries.all[slot].key) // another entry may use the key from now on
		f.resting = append(f.resting, resting{slot, now})
	}
	f.retired = kept
}

// freeRested frees the slots that have rested long enough.
func (f *FastPath) freeRested(now uint64) {
	n := 0
	for ; n < len(f.resting) && now-f.resting[n].at >= rest; n++ {
		slot := f.resting[n].slot
		f.harvest(slot)
		e := &f.entries.all[slot]
		last := f.used[len(f.used)-1]
		f.used[e.at] = last
		f.entries.all[last].at = e.at
		f.used = f.used[:len(f.used)-1]
		*e = entry{at: -1}
		f.free = append(f.free, slot)
	}
	f.resting = append(f.resting[:0], f.resting[n:]...)
}

// lastSeen returns when the program last saw a frame of an entry, or when the entry was made.
func (f *FastPath) lastSeen(slot uint32) uint64 {
	s := &f.memory.slots[slot]
	return max(atomic.LoadUint64(&s.Ways[0].Seen), atomic.LoadUint64(&s.Ways[1].Seen), f.entries.all[slot].begun)
}

// The time after which an idle entry gives up its slot to another flow, if slots run out. It is
// shorter for an entry that never carried a frame, such as those of a flood.
const (
	idleAfter   = uint64(10 * time.Second)
	unusedAfter = uint64(2 * time.Second)
)

// idleEntries returns entries to remove if slots run out. Each call checks another tenth of
// all.
func (f *FastPath) idleEntries(now uint64) (idle []uint32) {
	e := &f.entries
	if unused := e.limit - len(e.used); unused > e.limit/4 {
		return nil
	}
	for range min(len(e.used), e.limit/10+1) {
		if e.hand++; e.hand >= len(e.used) {
			e.hand = 0
		}
		slot := e.used[e.hand]
		if e.all[slot].stopped {
			continue
		}
		after := idleAfter
		if s := &f.memory.slots[slot]; atomic.LoadUint64(&s.Ways[0].Frames)|atomic.LoadUint64(&s.Ways[1].Frames) == 0 {
			after = unusedAfter
		}
		if seen := f.lastSeen(slot); now > seen && now-seen > after {
			idle = append(idle, slot)
		}
	}
	return idle
}

// takeAway retires entries. Their flows continue in user space.
func (f *FastPath) takeAway(slots []uint32) {
	if len(slots) == 0 {
		return
	}
	keys := make([]flow.Key, len(slots))
	f.mu.Lock()
	for i, slot := range slots {
		keys[i] = f.entries.all[slot].key
		f.retire(slot)
	}
	f.mu.Unlock()
	if table := f.table.Load(); table != nil {
		for i, slot := range slots {
			table.Detach(&keys[i], slot)
		}
	}
}

// retireAll retires all entries. The caller has replaced the flow table.
func (f *FastPath) retireAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, slot := range f.used {
		f.retire(slot)
	}
}

// retireDrops removes the entries that drop.
func (f *FastPath) retireDrops() {
	f.takeAway(f.selectEntries(func(e *entry) bool {
		return e.ways[verdict.Inside].denies || e.ways[verdict.Outside].denies
	}))
}

// retireMatching removes the entries of the flows that match.
func (f *FastPath) retireMatching(match func(*flow.Key) bool) {
	f.takeAway(f.selectEntries(func(e *entry) bool { return match(&e.key) }))
}

func (f *FastPath) selectEntries(want func(*entry) bool) (slots []uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, slot := range f.used {
		if e := &f.entries.all[slot]; !e.stopped && want(e) {
			slots = append(slots, slot)
		}
	}
	return slots
}
