package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// entries are the flows that the programs know. The kernel's map has the keys, with
// the numbers of slots; all else of a flow is in its slot. An entry that is not
// wanted any more is stopped at once: its slot says so, and what is of the flow goes
// up. Its key is deleted later, and the slot rests until no program can have found it
// by that key.
type entries struct {
	index map[flow.Key]uint32 // slots of the keys that the kernel has, or is about to
	all   []entry             // by slot; 0 is none
	limit int                 // of entries
	used  []uint32            // slots that are not free
	free  []uint32
	// retired are stopped entries whose key is to be deleted; resting are those
	// whose key is.
	retired []uint32
	resting []resting
	hand    int // where the search for idle entries goes on, in used
	budget  int // entries that may be made until the next upkeep

	loaded [][verdict.Sides]tally // by slot: what the flow table knows; its own
}

// entry is what user space knows of a slot.
type entry struct {
	key     flow.Key
	at      int // in used; or -1
	stopped bool
	pending bool   // in orders.unsettled
	ordered bool   // its orders count it among their entries
	learned int    // by so many goroutines at the moment: key and slot stay what they are
	begun   uint64 // see monotonic
	ways    [verdict.Sides]entryWay
}

// entryWay is of one direction.
type entryWay struct {
	denies    bool // it drops, or is about to
	decided   bool // the following is set
	action    verdict.Action
	reason    verdict.Reason
	rule      verdict.Rule
	counter   *filter.Counter // of the rule; nil where there is none
	tracking  programWayFlag  // of TCP
	counted   tally
	packets   settling // of the order of whole packets
	fragments settling // of that of fragments
}

// tally is what the program counted of a way.
type tally struct{ frames, frameBytes, datagrams, datagramBytes uint64 }

// resting is a slot whose key was deleted.
type resting struct {
	slot uint32
	at   uint64 // when the key was deleted, see monotonic
}

// rest is how long a slot rests: longer than any program runs.
const rest = uint64(time.Second)

func (e *entries) init(limit int) {
	e.limit = limit
	e.index = map[flow.Key]uint32{}
	e.all = make([]entry, 1)
	e.loaded = make([][verdict.Sides]tally, limit+1)
	e.budget = e.perUpkeep()
}

// perUpkeep is how many entries are made between two upkeeps at most, each of which
// costs a system call: an eighth of all in a second.
func (e *entries) perUpkeep() int { return max(e.limit/80, 16) }

// begin makes an entry, which decides nothing yet. It returns 0 where there is no slot.
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

// clear makes a slot that no program looks at that of a flow.
func (m *memory) clear(slot uint32, k *flow.Key) {
	s := &m.slots[slot]
	*s = programSlot{Epoch: s.Epoch + 1}
	now := monotonic()
	for side := range verdict.Side(verdict.Sides) {
		s.Order[side], s.Pair[side] = m.orderOf(k, side), m.pairOf(k, side)
		s.Ways[side].Seen = now
	}
}

// stop has what is of a slot go up from now on.
func (m *memory) stop(slot uint32) {
	for side := range m.slots[slot].Flags {
		atomic.SwapUint32(&m.slots[slot].Flags[side], 0)
	}
}

// retire stops an entry, and has it removed at the next upkeep.
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

// setDenies says whether a way drops, of which it keeps count.
func (f *FastPath) setDenies(w *entryWay, denies bool) {
	switch {
	case denies && !w.denies:
		f.denied.Add(1)
	case !denies && w.denies:
		f.denied.Add(-1)
	}
	w.denies = denies
}

// deleteRetired deletes the keys of the entries that were stopped. A key that the
// kernel does not give back keeps its slot, as does one that a goroutine is about to
// enter.
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
		delete(f.index, f.entries.all[slot].key) // which another entry may have from now on
		f.resting = append(f.resting, resting{slot, now})
	}
	f.retired = kept
}

// freeRested frees the slots that have rested.
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

// lastSeen returns when the program saw a frame of an entry last, or when it was made.
func (f *FastPath) lastSeen(slot uint32) uint64 {
	s := &f.memory.slots[slot]
	return max(atomic.LoadUint64(&s.Ways[0].Seen), atomic.LoadUint64(&s.Ways[1].Seen), f.entries.all[slot].begun)
}

// How long an entry is idle until its slot goes to another flow, if those run out:
// one that never carried a frame, as those of a flood, sooner.
const (
	idleAfter   = uint64(10 * time.Second)
	unusedAfter = uint64(2 * time.Second)
)

// idleEntries returns entries that may go, where slots run out: of a tenth of all,
// which are others each time.
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

// takeAway retires entries, of which the flows go on in user space.
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

// retireAll takes away all entries, of which no flow of a table goes on.
func (f *FastPath) retireAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, slot := range f.used {
		f.retire(slot)
	}
}

// retireDrops takes away the entries that drop.
func (f *FastPath) retireDrops() {
	f.takeAway(f.selectEntries(func(e *entry) bool {
		return e.ways[verdict.Inside].denies || e.ways[verdict.Outside].denies
	}))
}

// retireMatching takes away the entries of the flows that match.
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
