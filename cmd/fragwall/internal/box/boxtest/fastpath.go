package boxtest

import (
	"errors"
	"sync"
	"time"

	"fragwall/cmd/fragwall/internal/box"
	"fragwall/fastpath"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// FastPath is a fast path that forwards nothing and records the calls.
type FastPath struct {
	Options fastpath.Options
	kernel  *Kernel

	mu sync.Mutex
	// mu guards:
	sides   [verdict.Sides]FastSide
	drops   fastpath.Drops
	watched func(*flow.Key) bool
	closed  bool
	// suspended is set from Suspend to Resume.
	suspended bool
}

// FastSide is what a fast path was told about a side.
type FastSide struct {
	Attached bool
	Replaced bool // by Continue
	NIC, TAP int  // interface indices
	MTU      int  // in bytes
	Egress   bool
}

func (k *Kernel) openFastPath(o fastpath.Options) (box.FastPath, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.failures["openFastPath"]; err != nil {
		return nil, err
	}
	k.fastPath = &FastPath{Options: o, kernel: k, drops: o.Drops}
	return k.fastPath, nil
}

// FastPath returns the fast path that was opened last, or nil.
func (k *Kernel) FastPath() *FastPath {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fastPath
}

// Side returns what the fast path was told about a side.
func (f *FastPath) Side(side verdict.Side) FastSide {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sides[side]
}

// Drops returns the current setting for dropped frames.
func (f *FastPath) Drops() fastpath.Drops {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drops
}

// Watch implements [box.FastPath].
func (f *FastPath) Watch(match func(*flow.Key) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = match
}

// Watched returns the function of the last call of Watch, or nil.
func (f *FastPath) Watched() func(*flow.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watched
}

// Closed reports whether the fast path was closed.
func (f *FastPath) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Attach implements [box.FastPath].
func (f *FastPath) Attach(side verdict.Side, nic, tap int) error {
	if err := f.kernel.failure("attach"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.sides[side]
	s.Attached, s.NIC, s.TAP = true, nic, tap
	return nil
}

// Continue implements [box.FastPath].
func (f *FastPath) Continue(side verdict.Side, nic, tap int) error {
	if err := errors.Join(f.kernel.failure("continue"), f.Attach(side, nic, tap)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides[side].Replaced = true
	return nil
}

// Export implements [box.FastPath], without descriptors.
func (f *FastPath) Export() (*fastpath.Exported, error) { return &fastpath.Exported{}, nil }

// Suspend implements [box.FastPath].
func (f *FastPath) Suspend() { f.setSuspended(true) }

// Resume implements [box.FastPath].
func (f *FastPath) Resume() { f.setSuspended(false) }

func (f *FastPath) setSuspended(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.suspended = on
}

// Suspended reports whether all frames are to be passed up.
func (f *FastPath) Suspended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.suspended
}

// ContinueCounts implements [box.FastPath].
func (f *FastPath) ContinueCounts(*fastpath.Stats) {}

// Detach implements [box.FastPath].
func (f *FastPath) Detach(side verdict.Side) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.sides[side]
	s.Attached, s.Replaced, s.NIC, s.TAP = false, false, 0, 0
}

// SetMTU implements [box.FastPath].
func (f *FastPath) SetMTU(side verdict.Side, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides[side].MTU = bytes
}

// SetEgress implements [box.FastPath].
func (f *FastPath) SetEgress(side verdict.Side, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides[side].Egress = up
}

// SetDrops implements [box.FastPath].
func (f *FastPath) SetDrops(d fastpath.Drops) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops = d
}

// The calls of the wire have no effect.

func (f *FastPath) Begin(uint32, *flow.Progress)   {}
func (f *FastPath) Load(uint32, *flow.Progress)    {}
func (f *FastPath) Store(uint32, *flow.Progress)   {}
func (f *FastPath) Release(uint32, *flow.Progress) {}
func (f *FastPath) Forget(*flow.Key)               {}
func (f *FastPath) Start(time.Time)                {}
func (f *FastPath) Learn([]wire.Lesson)            {}
func (f *FastPath) Keys() []flow.Key               { return nil }
func (f *FastPath) Expect([]flow.Key)              {}
func (f *FastPath) SetPolicy(*filter.Table)        {}
func (f *FastPath) Harvest()                       {}
func (f *FastPath) Upkeep(time.Time)               {}

func (f *FastPath) Block(*packet.Parsed, verdict.Side) {}

func (f *FastPath) Yield(func(*packet.Parsed, verdict.Side, wire.Beginning)) {}

// Counts implements [wire.FastPath]. It returns no frames.
func (f *FastPath) Counts(verdict.Side) (none wire.FastCounts) { return none }

// Entry implements [wire.FastPath]. It knows no flows.
func (f *FastPath) Entry(*flow.Key, verdict.Side) (none wire.FastEntry, known bool) {
	return none, false
}

// Passed implements [wire.FastPath]. It knows no fragments.
func (f *FastPath) Passed(*packet.Parsed, verdict.Side) (none wire.Beginning, passed bool) {
	return none, false
}

// Stats implements [box.FastPath]. It reports 7 frames forwarded from the inside.
func (f *FastPath) Stats() fastpath.Stats {
	return fastpath.Stats{Sides: [verdict.Sides]fastpath.SideStats{verdict.Inside: {Forwarded: 7}}, Limit: f.Options.Entries}
}

// Close implements [box.FastPath].
func (f *FastPath) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
