package fastpath

import (
	"sync/atomic"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// read returns what the program has counted of a way so far.
func (w *programWay) read() tally {
	return tally{
		frames: atomic.LoadUint64(&w.Frames), frameBytes: atomic.LoadUint64(&w.FrameBytes),
		datagrams: atomic.LoadUint64(&w.Datagrams), datagramBytes: atomic.LoadUint64(&w.DatagramBytes),
	}
}

// minus returns what was counted since.
func (t tally) minus(before tally) tally {
	return tally{t.frames - before.frames, t.frameBytes - before.frameBytes, t.datagrams - before.datagrams, t.datagramBytes - before.datagramBytes}
}

// harvest adds the counts of an entry to the counters.
func (f *FastPath) harvest(slot uint32) {
	for side := range f.entries.all[slot].ways {
		f.harvestWay(slot, verdict.Side(side))
	}
}

func (f *FastPath) harvestWay(slot uint32, from verdict.Side) {
	w := &f.entries.all[slot].ways[from]
	if !w.decided {
		return
	}
	now := f.memory.slots[slot].Ways[from].read()
	if now == w.counted {
		return
	}
	since := now.minus(w.counted)
	w.counted = now
	c := &f.counts[from]
	if w.action == verdict.Accept {
		c.Forwarded += since.frames
		c.ForwardedBytes += since.frameBytes
	} else {
		c.Dropped[w.reason] += since.frames
		c.DroppedBytes += since.frameBytes
	}
	if w.counter != nil {
		w.counter.Add(since.datagrams, since.datagramBytes)
	}
}

// Harvest adds the decisions of rules in the fast path to their counters.
func (f *FastPath) Harvest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, slot := range f.used {
		f.harvest(slot)
	}
}

// Yield returns the state of the programs, once they are detached: the progress of flows to the
// flow table, decisions to the counters of rules, and the beginnings of datagrams to begun. It
// removes the entries, which are learnt again.
func (f *FastPath) Yield(begun func(p *packet.Parsed, from verdict.Side, b wire.Beginning)) {
	f.takeAway(f.selectEntries(func(*entry) bool { return true }))
	f.Harvest()
	if f.options.Mode != packet.ModeValidate {
		return
	}
	for i := range f.memory.fragments {
		if key, b, ok := f.tell(&f.memory.fragments[i], nil); ok {
			var p packet.Parsed
			from := datagramOf(&key, &p)
			begun(&p, from, b)
		}
	}
}

// Counts returns the counts of the frames that arrived on a side and that no lane got.
func (f *FastPath) Counts(from verdict.Side) wire.FastCounts {
	f.Harvest()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.counts[from]
	for i := range f.memory.totals {
		t := &f.memory.totals[i]
		c.Dropped[verdict.FragmentMode] += atomic.LoadUint64(&t.Fragments[from])
		c.DroppedBytes += atomic.LoadUint64(&t.FragmentBytes[from])
	}
	return c
}

// countsOfCPU is the number of counts of passed frames per CPU (COUNTS in bpf/layout.h).
const countsOfCPU = 64

// Stats returns the counts so far.
func (f *FastPath) Stats() Stats {
	s := Stats{Limit: f.options.Entries, MapErrors: f.mapErrors.Load()}
	f.mu.Lock()
	s.Entries = len(f.used)
	f.mu.Unlock()
	for side := range verdict.Side(verdict.Sides) {
		c := f.Counts(side)
		of := &s.Sides[side]
		of.Forwarded, of.ForwardedBytes, of.DroppedBytes = c.Forwarded, c.ForwardedBytes, c.DroppedBytes
		for _, n := range c.Dropped {
			of.Dropped += n
		}
		for cpu := range f.memory.totals {
			counts := f.memory.passedBy(cpu, side)
			for why := range of.Passed {
				of.Passed[why] += atomic.LoadUint64(&counts[why])
			}
		}
	}
	return s
}
