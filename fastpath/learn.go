package fastpath

import (
	"sync/atomic"

	"github.com/cilium/ebpf"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// fingerprints recognize the second packet of a flow. Only from then on does a flow get an
// entry. Flows share places; a place has the fingerprint of the flow that used it last.
type fingerprints [1 << 16]atomic.Uint32

// again reports whether the flow of a hash was seen before.
func (f *fingerprints) again(hash uint64) bool {
	place, print := &f[hash%uint64(len(f))], uint32(hash>>32)|1
	if place.Load() == print {
		return true
	}
	place.Store(print)
	return false
}

// Learn learns the verdicts of a batch.
func (f *FastPath) Learn(lessons []wire.Lesson) {
	for i := range lessons {
		l := &lessons[i]
		if l.Verdict.Generation != f.generation.Load() || f.isLeft(l) {
			continue
		}
		if f.known.again(f.memory.fingerprint(&l.Key, l.From)) {
			f.learn(l)
		}
	}
}

// isLeft reports whether the datagrams of a lesson must stay in user space.
func (f *FastPath) isLeft(l *wire.Lesson) bool {
	return l.Verdict.Action != verdict.Accept && Drops(f.drops.Load()) == DropNone || f.isWatched(&l.Key)
}

// fingerprint returns a hash of the key and the side that a verdict applies to.
func (m *memory) fingerprint(k *flow.Key, from verdict.Side) uint64 {
	h := mix(m.config.Secret[0]^uint64(from), k.Inside[0])
	for _, word := range [...]uint64{k.Inside[1], k.Outside[0], k.Outside[1], k.Ports, k.VLANs} {
		h = mix(h, word)
	}
	return mix(h, m.config.Secret[1])
}

// learn makes the programs apply a verdict:
//
// 1. find or make the entry of the flow, which decides nothing yet;
// 2. ask the flow table, which assigns the slot to the flow or refuses;
// 3. enter the key in the kernel's map, if it is new;
// 4. set the verdict, unless the entry was stopped meanwhile.
func (f *FastPath) learn(l *wire.Lesson) {
	slot, made := f.place(l)
	if slot == 0 {
		return
	}
	defer f.unpin(slot)
	if !f.agreed(l, slot) || made && !f.enterKey(&l.Key, slot) {
		if made || l.Verdict.Action != verdict.Accept {
			f.takeAway([]uint32{slot})
		}
		return
	}
	if !f.decide(l, slot) {
		l.Table.Detach(&l.Key, slot) // the slot was assigned to the flow meanwhile
	}
}

// place finds or makes the entry of a lesson. It returns 0 if there is nothing to learn, or no
// room. Otherwise the entry keeps its key and its slot until the caller calls unpin. The entry
// may be stopped at any time, and a key that was entered after its deletion would lead to the
// slot of another flow.
func (f *FastPath) place(l *wire.Lesson) (slot uint32, made bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, false
	}
	slot, found := f.index[l.Key]
	if !found {
		if f.budget == 0 {
			return 0, false
		}
		if slot = f.begin(&l.Key); slot != 0 {
			f.budget--
			f.setDenies(&f.entries.all[slot].ways[l.From], l.Verdict.Action != verdict.Accept)
			f.entries.all[slot].learned++
		}
		return slot, slot != 0
	}
	e := &f.entries.all[slot]
	if e.stopped {
		return 0, false
	}
	if f.carriedOut(l, slot, &e.ways[l.From]) {
		f.watchOrder(slot) // why was the frame passed up?
		return 0, false
	}
	if l.Verdict.Action != verdict.Accept {
		f.setDenies(&e.ways[l.From], true)
	}
	e.learned++
	return slot, false
}

// unpin releases the entry of a lesson.
func (f *FastPath) unpin(slot uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries.all[slot].learned--
}

// flagsOf returns the flags of a lesson's verdict.
func flagsOf(l *wire.Lesson) programWayFlag {
	flags := programWayFlagWHOLE
	if l.Fragmented {
		flags = programWayFlagFRAGMENTS
	}
	if l.Verdict.Action == verdict.Accept {
		flags |= programWayFlagACCEPT
	}
	return flags
}

// carriedOut reports whether the programs already apply a verdict.
func (f *FastPath) carriedOut(l *wire.Lesson, slot uint32, w *entryWay) bool {
	s := &f.memory.slots[slot]
	flags := flagsOf(l)
	return s.Generation[l.From] == l.Verdict.Generation && w.rule == l.Verdict.Rule && programWayFlag(s.Flags[l.From])&flags == flags
}

// agreed asks the flow table whether the verdict still holds.
func (f *FastPath) agreed(l *wire.Lesson, slot uint32) bool {
	if l.Verdict.Action == verdict.Accept {
		return l.Table.Attach(&l.Key, slot, f.now())
	}
	return !l.Table.Known(&l.Key, f.now())
}

// enterKey enters a key with its slot in the kernel's map.
func (f *FastPath) enterKey(k *flow.Key, slot uint32) bool {
	key := programKey(k)
	if err := f.objects.Flows.Update(&key, &slot, ebpf.UpdateAny); err != nil {
		f.mapErrors.Add(1)
		return false
	}
	return true
}

func (f *FastPath) deleteKey(k *flow.Key) error {
	key := programKey(k)
	err := f.objects.Flows.Delete(&key)
	if isMissing(err) {
		return nil
	}
	return err
}

func programKey(k *flow.Key) programFlowKey {
	return programFlowKey{Inside: k.Inside, Outside: k.Outside, Ports: k.Ports, Vlans: k.VLANs}
}

func flowKey(k *programFlowKey) flow.Key {
	return flow.Key{Inside: k.Inside, Outside: k.Outside, Ports: k.Ports, VLANs: k.Vlans}
}

// decide sets the verdict of a lesson, and reports whether the entry still exists. It first
// updates the counters of the previous verdict.
func (f *FastPath) decide(l *wire.Lesson, slot uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, s := &f.entries.all[slot], &f.memory.slots[slot]
	if e.stopped || e.key != l.Key || f.closed {
		return false
	}
	if f.isLeft(l) { // checked again, since it may have changed during the lesson
		f.retire(slot)
		return false
	}
	if l.Verdict.Generation != f.generation.Load() {
		return true
	}
	f.own(slot, true)
	w, flags := &e.ways[l.From], flagsOf(l)
	same := w.decided && s.Generation[l.From] == l.Verdict.Generation && w.rule == l.Verdict.Rule && w.action == l.Verdict.Action
	if w.decided && s.Generation[l.From] == l.Verdict.Generation && !same {
		return true // whole packets and fragments have different verdicts: the first one stays
	}
	if same {
		flags |= programWayFlag(s.Flags[l.From])
	} else {
		f.harvestWay(slot, l.From)
		w.decided, w.action, w.reason, w.rule = true, l.Verdict.Action, l.Verdict.Reason, l.Verdict.Rule
		w.counter = l.Table.Counter(l.From, l.Verdict.Rule)
		f.setDenies(w, w.action != verdict.Accept)
	}
	if l.Table.Stateful() && l.Verdict.Action == verdict.Accept && uint8(l.Key.Ports>>8) == packet.ProtocolTCP {
		flags |= programWayFlagTRACKED | w.tracking
	}
	atomic.StoreUint32(&s.Generation[l.From], l.Verdict.Generation)
	atomic.StoreUint32(&s.Flags[l.From], uint32(flags))
	f.watchOrder(slot)
	return true
}
