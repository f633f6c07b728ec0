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

// End is what the wire needs to know of one side.
type End struct {
	// Lanes are those by which frames come in from the side. Each runs by
	// itself: the frames between two addresses must come in by the same one.
	Lanes []tun.Lane
	MTU   int // bytes: the longest packet that the side takes
}

// Config says what to join, and how.
type Config struct {
	Ends   [verdict.Sides]End // by verdict.Side
	Policy *filter.Policy
	Mode   packet.Mode // of fragments
	Emit   packet.Emit // in [packet.ModeReassemble]
	// Fragments are the limits of what waits, in the modes where something
	// does. Its ledger is the wire's.
	Fragments stack.Options
	// Observer hears of the decisions that it wants to hear of; nil costs
	// nothing.
	Observer Observer
	// Now is the clock; nil stands for time.Now. It must not run backwards.
	Now func() time.Time
}

// Bump is a bump in the wire.
type Bump struct {
	directions [verdict.Sides][]*direction // by the side that frames come in by
	mtus       [verdict.Sides]mtu
	waiting    [verdict.Sides]Counters // of the frames that waited
	latency    [verdict.Sides]Latency
	reloading  sync.Mutex // held while a policy is compiled
	policy     atomic.Pointer[filter.Table]
	table      *stack.Table // nil where no fragment waits
	observer   Observer     // may be nil
	started    time.Time    // where the policy's clock begins
}

// New returns a bump that [Bump.Run] sets going.
func New(c Config) *Bump {
	b := &Bump{observer: c.Observer}
	if c.Now == nil {
		c.Now = time.Now
	}
	if b.started = c.Now(); b.started.IsZero() {
		b.started = time.Unix(0, 0) // of a capture's clock before its first frame
	}
	b.policy.Store(filter.Compile(c.Policy, nil))
	c.Fragments.Ledger = ledger{b}
	var reassembler stack.Reassembler
	var validator stack.Validator
	switch c.Mode {
	case packet.ModeReassemble:
		reassembler = stack.NewReassembler(c.Fragments)
		b.table = reassembler.Table
	case packet.ModeValidate:
		validator = stack.NewValidator(c.Fragments)
		b.table = validator.Table
	}
	for side := range verdict.Side(verdict.Sides) {
		b.SetMTU(side, c.Ends[side].MTU)
		replies := filter.NewBucket(replyRate)
		for _, lane := range c.Ends[side].Lanes {
			d := &direction{
				from:        side,
				lane:        lane,
				egressMTU:   &b.mtus[side.Other()],
				ingressMTU:  &b.mtus[side],
				replies:     replies,
				mode:        c.Mode,
				emit:        c.Emit,
				table:       b.table,
				reassembler: reassembler,
				validator:   validator,
				policy:      &b.policy,
				waiting:     &b.waiting[side],
				observer:    b.observer,
				latency:     &b.latency[side],
				now:         c.Now,
				started:     b.started,
			}
			d.clock = d.elapsed
			d.datagram = packet.View{Parsed: &d.parsed, From: side}
			b.directions[side] = append(b.directions[side], d)
		}
	}
	return b
}

// replyRate limits the replies to rejected datagrams of one side, so that a
// flood is not answered by another one: net.ipv4.icmp_msgs_per_sec.
var replyRate = filter.Rate{Count: 1000, Per: time.Second}

// flowShares is in how many parts the flows are looked through for those whose
// time is up, one each interval: 10 s for all.
const flowShares = 100

// expiryInterval is how much later than its deadline what waits may go.
const expiryInterval = 100 * time.Millisecond

// Run forwards until ctx is done, for which it returns nil, or a lane fails.
// It closes all lanes, and drops what still waits, before it returns.
func (b *Bump) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, directions := range b.directions {
		for _, d := range directions {
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
				if b.table != nil {
					b.table.Expire(now)
				}
				b.policy.Load().Expire(func() time.Duration { return now.Sub(b.started) }, flowShares)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	err := g.Wait()
	if b.table != nil {
		b.table.Close()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, tun.ErrClosed) {
		return nil
	}
	return err
}

// closeLanes wakes the directions. The lanes' errors would say nothing that
// ends differently.
func (b *Bump) closeLanes() {
	for _, directions := range b.directions {
		for _, d := range directions {
			_ = d.lane.Close()
		}
	}
}

// Counters returns what became of the frames that came in by side.
func (b *Bump) Counters(side verdict.Side) Snapshot {
	s := b.waiting[side].Snapshot()
	for _, d := range b.directions[side] {
		s.add(d.counters.Snapshot())
	}
	return s
}

// Latency returns how long batches of frames that came in by side took.
func (b *Bump) Latency(side verdict.Side) *Latency { return &b.latency[side] }

// mtu is the length in bytes of the longest packet that a side takes, which may
// change while frames flow.
type mtu struct{ bytes atomic.Int32 }

func (m *mtu) get() int { return int(m.bytes.Load()) }

// SetMTU changes the length in bytes of the longest packet that a side takes.
func (b *Bump) SetMTU(side verdict.Side, bytes int) { b.mtus[side].bytes.Store(int32(bytes)) }

// MTU returns the length in bytes of the longest packet that a side takes.
func (b *Bump) MTU(side verdict.Side) int { return b.mtus[side].get() }

// Reload puts a policy in the place of the one in force. Each datagram is judged
// by one or the other; flows and the counters of rules of the same name go on.
func (b *Bump) Reload(p *filter.Policy) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	b.policy.Store(filter.Compile(p, b.policy.Load()))
}

// Policy returns the policy in force, with its rules' counts.
func (b *Bump) Policy() *filter.Table { return b.policy.Load() }

// Usage returns what waits.
func (b *Bump) Usage() stack.Usage {
	if b.table == nil {
		return stack.Usage{}
	}
	return b.table.Usage()
}

// ledger counts for the table.
type ledger struct{ *Bump }

// Held implements [stack.Ledger].
func (l ledger) Held(d *stack.Datagram) { l.waiting[d.Side()].waiting.Add(1) }

// Dropped implements [stack.Ledger].
func (l ledger) Dropped(d *stack.Datagram, why verdict.Reason) {
	l.waiting[d.Side()].dropWaiting(d.Len(), why)
	v := filter.Verdict{Reason: why}
	if l.observer == nil || d.Len() == 0 || !l.observer.Wants(v, nil) {
		return
	}
	gone := decisions.Get().(*Decision)
	*gone = Decision{From: d.Side(), Verdict: v, Fragments: d.Len(), datagram: d}
	l.observer.Decided(gone)
	decisions.Put(gone)
}
