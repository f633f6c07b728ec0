package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// Entry returns what the programs do with the datagrams of a flow that arrive on a side; false
// if they pass all of them up. It changes nothing.
func (f *FastPath) Entry(k *flow.Key, from verdict.Side) (e wire.FastEntry, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slot, found := f.index[*k]
	if !found || f.closed {
		return e, false
	}
	s, w := &f.memory.slots[slot], &f.entries.all[slot].ways[from]
	flags := programWayFlag(atomic.LoadUint32(&s.Flags[from]))
	e.Whole, e.Fragments = flags&programWayFlagWHOLE != 0, flags&programWayFlagFRAGMENTS != 0
	if !e.Whole && !e.Fragments || atomic.LoadUint32(&s.Generation[from]) != f.generation.Load() {
		return wire.FastEntry{}, false // stopped, or of an older policy
	}
	way := &s.Ways[from]
	e.Action, e.Reason, e.Rule = w.action, w.reason, w.rule
	e.Frames, e.Bytes = atomic.LoadUint64(&way.Frames), atomic.LoadUint64(&way.FrameBytes)
	if e.Frames > 0 {
		e.Seen = time.Duration(atomic.LoadUint64(&way.Seen) - f.zero.Load())
	}
	return e, true
}
