package wire

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// SideConfig is the configuration of one side.
type SideConfig struct {
	// Lanes are the lanes of the frames that arrive on the side. They run independently, so all
	// frames between two addresses must arrive on the same lane.
	Lanes []tun.Lane
	MTU   int // bytes: the longest packet that may be sent out of the side
}

// Config is the configuration of a [Bump].
type Config struct {
	Sides  [verdict.Sides]SideConfig // by verdict.Side
	Policy *filter.Policy
	Mode   packet.Mode // how fragments are handled
	Emit   packet.Emit // in [packet.ModeReassemble]
	// Fragments are the limits on incomplete datagrams, in the modes that hold fragments. New
	// replaces the ledger.
	Fragments stack.Options
	// Observer is asked about every decision; nil costs nothing. See [Bump.Observe].
	Observer Observer
	// FastPath carries out verdicts before frames reach a lane; nil if there is none.
	FastPath FastPath
	// Now is the clock; nil means time.Now. It must not run backwards.
	Now func() time.Time
}

// Bump is a bump in the wire.
type Bump struct {
	sides     [verdict.Sides]ingress
	reloading sync.Mutex // held while a policy is compiled
	policy    atomic.Pointer[filter.Table]
	mode      packet.Mode             // how fragments are handled
	fragments fragmentMode            // for changes that the wire itself makes to the table
	table     *stack.Table            // nil if the mode holds no fragments
	started   time.Time               // zero of the policy's clock
	fastPath  FastPath                // nil if there is none
	waiting   [verdict.Sides]Counters // of the frames that were held
	watch     watch
	rest      rest
	upkeep    sync.Mutex              // held while something expires, and while the wire is held
	boot      func() time.Duration    // the clock that is shared with the wires of other processes
	bootID    string                  // read at the start, since a confined process cannot read it
	restored  bool                    // the policy's clock continues that of another process
	before    [verdict.Sides]Snapshot // counters of another process that this one continues
	observer  Observer                // of datagrams that are dropped while nothing arrives
	reports   reports                 // of the same datagrams
}

// New returns a bump, which [Bump.Run] starts.
func New(c Config) *Bump {
	b := &Bump{fastPath: c.FastPath, mode: c.Mode, rest: newRest(), boot: sinceBoot, bootID: readBootID()}
	b.watch.set(c.Observer)
	if c.Now == nil {
		c.Now = time.Now
	} else {
		b.boot = func() time.Duration { return c.Now().Sub(time.Unix(0, 0)) }
	}
	if b.started = c.Now(); b.started.IsZero() {
		b.started = time.Unix(0, 0) // on a capture's clock, before its first frame
	}
	if b.fastPath != nil {
		b.fastPath.Start(b.started)
	}
	b.enforce(c.Policy)
	c.Fragments.Ledger = &ledger{waiting: &b.waiting, observer: &b.observer, reports: &b.reports}
	var mode func(stack.Ledger) fragmentMode
	mode, b.table = newFragmentModes(&c)
	b.fragments = mode(c.Fragments.Ledger)
	for side := range verdict.Side(verdict.Sides) {
		in := &b.sides[side]
		*in = ingress{
			side:      side,
			egressMTU: &b.sides[side.Other()].mtu,
			policy:    &b.policy,
			watch:     &b.watch,
			fastPath:  c.FastPath,
			now:       c.Now,
			started:   b.started,
			replies:   filter.NewBucket(replyRate),
			waiting:   &b.waiting,
			latency:   new(Latency),
			rest:      &b.rest,
		}
		in.mtu.set(c.Sides[side].MTU)
		for _, lane := range c.Sides[side].Lanes {
			in.directions = append(in.directions, newDirection(in, lane, mode, b.table))
		}
	}
	return b
}

// flowShares is the number of parts in which the flows are checked for expiry, one part per
// interval: 10 s for all.
const flowShares = 100

// expiryInterval is how long after its deadline a datagram may be dropped at most.
const expiryInterval = 100 * time.Millisecond

// Run forwards until ctx is done, in which case it returns nil, or until a lane fails. Before
// it returns, it closes all lanes and drops all fragments that it still holds.
func (b *Bump) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for side := range b.sides {
		for _, d := range b.sides[side].directions {
			g.Go(d.run)
		}
	}
	g.Go(func() error {
		defer b.closeLanes()
		ticker := time.NewTicker(expiryInterval)
		defer ticker.Stop()
		for {
			select {
			case now := <-ticker.C:
				b.keepUp(now)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	err := g.Wait()
	if !b.rest.held() {
		b.closeTable()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, tun.ErrClosed) {
		return nil
	}
	return err
}

// keepUp removes what has expired, unless the wire is held.
func (b *Bump) keepUp(now time.Time) {
	if !b.upkeep.TryLock() {
		return
	}
	defer b.upkeep.Unlock()
	b.expire(now)
	b.policy.Load().Expire(func() time.Duration { return now.Sub(b.started) }, flowShares)
	if b.fastPath != nil {
		b.fastPath.Upkeep(now)
	}
}

// expire drops the datagrams whose deadline is at or before now.
func (b *Bump) expire(now time.Time) {
	if b.table != nil {
		b.observer = b.watch.get()
		b.table.Expire(now)
		b.deliver()
	}
}

// closeTable drops all held fragments, for [verdict.FragmentShutdown].
func (b *Bump) closeTable() {
	if b.table != nil {
		b.observer = b.watch.get()
		b.table.Close()
		b.deliver()
	}
}

// deliver makes the reports on datagrams that were dropped. These may be as many as the table holds,
// so it frees the memory of the reports afterwards.
func (b *Bump) deliver() {
	b.reports.deliver()
	b.reports = reports{}
}

// closeLanes wakes the directions. It ignores the errors of the lanes, since nothing depends on
// them.
func (b *Bump) closeLanes() {
	for side := range b.sides {
		for _, d := range b.sides[side].directions {
			_ = d.lane.Close()
		}
	}
	b.rest.stop()
}

// Counters returns the counters of the frames that arrived on side. They include those that
// were shed before they arrived ([tun.Lane]), for which no bytes are counted.
func (b *Bump) Counters(side verdict.Side) Snapshot {
	s := b.waiting[side].Snapshot()
	s.add(b.before[side])
	for _, d := range b.sides[side].directions {
		s.add(d.counters.Snapshot())
	}
	s.Dropped[verdict.FragmentShed] += b.Shed(side)
	if b.fastPath != nil {
		s.addFast(b.fastPath.Counts(side))
	}
	return s
}

// Shed returns how many fragments from side were dropped before they were read ([tun.Lane]).
// Observers are not told of them.
func (b *Bump) Shed(side verdict.Side) (fragments uint64) {
	for _, d := range b.sides[side].directions {
		fragments += d.lane.Shed()
	}
	return fragments
}

// Latency returns how long batches of frames that arrived on side took.
func (b *Bump) Latency(side verdict.Side) *Latency { return b.sides[side].latency }

// SetMTU changes the length in bytes of the longest packet that may be sent out of a side.
func (b *Bump) SetMTU(side verdict.Side, bytes int) { b.sides[side].mtu.set(bytes) }

// MTU returns the length in bytes of the longest packet that may be sent out of a side.
func (b *Bump) MTU(side verdict.Side) int { return b.sides[side].mtu.get() }

// Reload replaces the policy in force. Each datagram is judged by either the old or the new
// policy; once Reload has returned, only by the new one. Flows continue, and so do the counters
// of rules with the same name.
func (b *Bump) Reload(p *filter.Policy) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	b.enforce(p)
}

// enforce puts a policy into force.
func (b *Bump) enforce(p *filter.Policy) {
	table := filter.Compile(p, b.policy.Load())
	if b.fastPath != nil {
		table.SetOffload(b.fastPath)
	}
	b.policy.Store(table)
	for side := range b.sides {
		for _, d := range b.sides[side].directions {
			d.awaitVerdicts()
		}
	}
	if b.fastPath != nil {
		b.fastPath.SetPolicy(table)
	}
}

// Elapsed returns the time on the policy's clock, which the ages of flows refer to.
func (b *Bump) Elapsed() time.Duration {
	return b.Now().Sub(b.started)
}

// Policy returns the policy in force, with the counters of its rules.
func (b *Bump) Policy() *filter.Table {
	if b.fastPath != nil {
		b.fastPath.Harvest()
	}
	return b.policy.Load()
}

// Observe replaces the observer; nil means none. The new one is asked from the next batch on,
// since each direction reads the observer once per batch. The previous one may still be asked
// about a batch that is in progress.
func (b *Bump) Observe(o Observer) { b.watch.set(o) }

// Usage returns what the table of fragments holds.
func (b *Bump) Usage() stack.Usage {
	if b.table == nil {
		return stack.Usage{}
	}
	return b.table.Usage()
}

// WalkWaiting calls visit with each incomplete datagram, as [stack.Table.Walk] does.
func (b *Bump) WalkWaiting(pause func(datagrams int) error, visit func(*stack.Waiting) error) error {
	if b.table == nil {
		return nil
	}
	return b.table.Walk(pause, visit)
}

// Now returns the time on the clock of the table of fragments.
func (b *Bump) Now() time.Time { return b.sides[0].now() }
