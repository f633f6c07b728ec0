package boxtest

import (
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

// FastPath is a fast path that forwards nothing, and notes what it is told.
type FastPath struct {
	Options fastpath.Options
	kernel  *Kernel

	mu sync.Mutex
	// mu guards:
	sides   [verdict.Sides]FastSide
	drops   fastpath.Drops
	watched func(*flow.Key) bool
	closed  bool
}

// FastSide is what a fast path was told of a side.
type FastSide struct {
	Attached bool
	NIC, TAP int // indices
	MTU      int // bytes
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

// FastPath returns the one that was opened last; nil where none was.
func (k *Kernel) FastPath() *FastPath {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fastPath
}

// Side returns what the fast path was told of a side.
func (f *FastPath) Side(side verdict.Side) FastSide {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sides[side]
}

// Drops returns what becomes of frames that are dropped.
func (f *FastPath) Drops() fastpath.Drops {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drops
}

// Watch notes what is watched.
func (f *FastPath) Watch(match func(*flow.Key) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = match
}

// Watched returns what is watched; nil for nothing.
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

// Attach notes the devices.
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

// Detach forgets the devices.
func (f *FastPath) Detach(side verdict.Side) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.sides[side]
	s.Attached, s.NIC, s.TAP = false, 0, 0
}

// SetMTU notes the MTU.
func (f *FastPath) SetMTU(side verdict.Side, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides[side].MTU = bytes
}

// SetEgress notes the state of the link.
func (f *FastPath) SetEgress(side verdict.Side, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides[side].Egress = up
}

// SetDrops notes what becomes of frames that are dropped.
func (f *FastPath) SetDrops(d fastpath.Drops) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drops = d
}

// Of what the wire asks, it does nothing.

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

// Counts is of no frames.
func (f *FastPath) Counts(verdict.Side) (none wire.FastCounts) { return none }

// Entry knows of no flows.
func (f *FastPath) Entry(*flow.Key, verdict.Side) (none wire.FastEntry, known bool) {
	return none, false
}

// Passed knows of no fragments.
func (f *FastPath) Passed(*packet.Parsed, verdict.Side) (none wire.Beginning, passed bool) {
	return none, false
}

// Stats says that 7 frames from the inside were forwarded.
func (f *FastPath) Stats() fastpath.Stats {
	return fastpath.Stats{Sides: [verdict.Sides]fastpath.SideStats{verdict.Inside: {Forwarded: 7}}, Limit: f.Options.Entries}
}

// Close notes that the fast path was closed.
func (f *FastPath) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
