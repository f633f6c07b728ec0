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

// SideConfig is what the wire needs to know of one side.
type SideConfig struct {
	// Lanes are those by which frames come in from the side. Each runs by
	// itself: the frames between two addresses must come in by the same one.
	Lanes []tun.Lane
	MTU   int // bytes: the longest packet that the side takes
}

// Config says what to join, and how.
type Config struct {
	Sides  [verdict.Sides]SideConfig // by verdict.Side
	Policy *filter.Policy
	Mode   packet.Mode // of fragments
	Emit   packet.Emit // in [packet.ModeReassemble]
	// Fragments are the limits of what waits, in the modes where something
	// does. Its ledger is the wire's.
	Fragments stack.Options
	// Observer is asked about every decision; nil costs nothing. See [Bump.Observe].
	Observer Observer
	// FastPath carries out what was decided; nil where none does.
	FastPath FastPath
	// Now is the clock; nil stands for time.Now. It must not run backwards.
	Now func() time.Time
}

// Bump is a bump in the wire.
type Bump struct {
	sides     [verdict.Sides]ingress
	reloading sync.Mutex // held while a policy is compiled
	policy    atomic.Pointer[filter.Table]
	mode      packet.Mode             // of fragments
	fragments fragmentMode            // for what the wire itself puts on the table
	table     *stack.Table            // nil where no fragment waits
	started   time.Time               // where the policy's clock begins
	fastPath  FastPath                // nil where there is none
	waiting   [verdict.Sides]Counters // of the frames that waited
	watch     watch
	rest      rest
	upkeep    sync.Mutex              // held while something expires, and while the wire is held
	boot      func() time.Duration    // the clock that wires of other processes share
	bootID    string                  // read once: a confined process can not
	restored  bool                    // the policy's clock goes on from that of another process
	before    [verdict.Sides]Snapshot // counters of another process that this one goes on with
	observer  Observer                // of what waited in vain while nothing came
	reports   reports                 // of the same
}

// New returns a bump that [Bump.Run] sets going.
func New(c Config) *Bump {
	b := &Bump{fastPath: c.FastPath, mode: c.Mode, rest: newRest(), boot: sinceBoot, bootID: readBootID()}
	b.watch.set(c.Observer)
	if c.Now == nil {
		c.Now = time.Now
	} else {
		b.boot = func() time.Duration { return c.Now().Sub(time.Unix(0, 0)) }
	}
	if b.started = c.Now(); b.started.IsZero() {
		b.started = time.Unix(0, 0) // of a capture's clock before its first frame
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

// flowShares is in how many parts the flows are looked through for those whose
// time is up, one each interval: 10 s for all.
const flowShares = 100

// expiryInterval is how much later than its deadline what waits may go.
const expiryInterval = 100 * time.Millisecond

// Run forwards until ctx is done, for which it returns nil, or a lane fails.
// It closes all lanes, and drops what still waits, before it returns.
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

// closeTable drops what still waits, for [verdict.FragmentShutdown].
func (b *Bump) closeTable() {
	if b.table != nil {
		b.observer = b.watch.get()
		b.table.Close()
		b.deliver()
	}
}

// deliver makes the reports of what waited in vain, which may be all of the
// table, and keeps no room for as many.
func (b *Bump) deliver() {
	b.reports.deliver()
	b.reports = reports{}
}

// closeLanes wakes the directions. The lanes' errors would say nothing that
// ends differently.
func (b *Bump) closeLanes() {
	for side := range b.sides {
		for _, d := range b.sides[side].directions {
			_ = d.lane.Close()
		}
	}
	b.rest.stop()
}

// Counters returns what became of the frames that came in by side, or would have if
// they had not been shed before ([tun.Lane]): of these no bytes are counted.
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

// Shed returns how many fragments that came in by side were refused before they were
// read ([tun.Lane]). No observer is told of them.
func (b *Bump) Shed(side verdict.Side) (fragments uint64) {
	for _, d := range b.sides[side].directions {
		fragments += d.lane.Shed()
	}
	return fragments
}

// Latency returns how long batches of frames that came in by side took.
func (b *Bump) Latency(side verdict.Side) *Latency { return b.sides[side].latency }

// SetMTU changes the length in bytes of the longest packet that a side takes.
func (b *Bump) SetMTU(side verdict.Side, bytes int) { b.sides[side].mtu.set(bytes) }

// MTU returns the length in bytes of the longest packet that a side takes.
func (b *Bump) MTU(side verdict.Side) int { return b.sides[side].mtu.get() }

// Reload puts a policy in the place of the one in force. Each datagram is judged
// by one or the other; once Reload has returned, by the new one. Flows and the
// counters of rules of the same name go on.
func (b *Bump) Reload(p *filter.Policy) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	b.enforce(p)
}

// enforce puts a policy in force.
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

// Elapsed returns the time on the clock by which the policy judges, and by which its
// flows are as old as they are.
func (b *Bump) Elapsed() time.Duration {
	return b.Now().Sub(b.started)
}

// Policy returns the policy in force, with its rules' counts.
func (b *Bump) Policy() *filter.Table {
	if b.fastPath != nil {
		b.fastPath.Harvest()
	}
	return b.policy.Load()
}

// Observe puts an observer in the place of the one that observes; nil for none. It
// is asked from the next batch on, for which each direction reads it once: the one
// before may still be asked about a batch that is on its way.
func (b *Bump) Observe(o Observer) { b.watch.set(o) }

// Usage returns what waits.
func (b *Bump) Usage() stack.Usage {
	if b.table == nil {
		return stack.Usage{}
	}
	return b.table.Usage()
}

// WalkWaiting calls visit with each datagram that waits, as [stack.Table.Walk] does.
func (b *Bump) WalkWaiting(pause func(datagrams int) error, visit func(*stack.Waiting) error) error {
	if b.table == nil {
		return nil
	}
	return b.table.Walk(pause, visit)
}

// Now returns the time on the clock by which fragments wait.
func (b *Bump) Now() time.Time { return b.sides[0].now() }
