package events

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/wire"
)

// MatchRate limits the events of rules with log = true, over all rules: more
// than a person reads, less than a disk notices.
var MatchRate = filter.Rate{Count: 10, Per: time.Second}

const (
	// queueLength is how many events may wait for the log.
	queueLength = 1024
	// lastPatience is how long those that wait at the end may take: the log gets
	// a second then, which has to do for the counters, too.
	lastPatience = 500 * time.Millisecond
	// Kept is how many of the last events are kept.
	Kept = 200
)

// kind is what events are limited by.
type kind int

const (
	none kind = iota
	drop
	match
	kinds
)

var kindNames = [kinds]string{drop: "drop", match: "match"}

// Recorder is a [wire.Observer] that tells the log of some decisions.
type Recorder struct {
	log     slog.Handler
	budgets [kinds]budget
	queue   chan queued

	told, failed atomic.Uint64 // of all kinds

	mu sync.Mutex
	// mu guards:
	last []Event // oldest first, up to Kept
}

// queued is an event on its way to the log, or only a count of suppressed ones.
type queued struct {
	Event      // none where Kind is ""
	kind       kind
	suppressed uint64 // of the kind, before it
}

// budget is how many events of a kind may still be told in this while.
type budget struct {
	left       atomic.Int64
	suppressed atomic.Uint64 // since the start
	reported   atomic.Uint64 // of those; the goroutine that writes sets it
	rate       atomic.Pointer[filter.Rate]
	renewed    chan struct{} // the rate was changed
}

// NewRecorder returns a recorder that tells of drops at a rate, see
// [rules.Log].
func NewRecorder(log slog.Handler, drops filter.Rate) *Recorder {
	r := &Recorder{log: log, queue: make(chan queued, queueLength)}
	for k := drop; k < kinds; k++ {
		r.budgets[k].renewed = make(chan struct{}, 1)
	}
	r.budgets[match].set(MatchRate)
	r.budgets[drop].set(drops)
	return r
}

// SetDrops changes the rate of events of drops.
func (r *Recorder) SetDrops(rate filter.Rate) { r.budgets[drop].set(rate) }

// set changes the rate. What is left of the while goes by the new one.
func (b *budget) set(rate filter.Rate) {
	if old := b.rate.Swap(&rate); old != nil && *old == rate {
		return
	}
	b.left.Store(int64(rate.Count))
	select {
	case b.renewed <- struct{}{}:
	default:
	}
}

// take takes one from the budget, or counts one as suppressed.
func (b *budget) take() bool {
	if b.left.Load() > 0 && b.left.Add(-1) >= 0 {
		return true
	}
	b.suppressed.Add(1)
	return false
}

// kindOf returns what kind of event a verdict makes.
func kindOf(v filter.Verdict) kind {
	switch {
	case v.Rule != nil && v.Rule.Log && !v.Flow:
		return match
	case v.Action != filter.Accept:
		return drop
	}
	return none
}

// Wants implements [wire.Observer]: the answer is yes as often as the budgets
// allow.
func (r *Recorder) Wants(v filter.Verdict) bool {
	k := kindOf(v)
	if k == none {
		return false
	}
	if r.budgets[k].rate.Load().Count == 0 {
		return false // and nothing is suppressed that nobody asked for
	}
	return r.budgets[k].take()
}

// Decided implements [wire.Observer].
func (r *Recorder) Decided(d *wire.Decision) {
	k := kindOf(d.Verdict)
	select {
	case r.queue <- queued{newEvent(k, d, time.Now()), k, r.budgets[k].suppressed.Load()}:
	default:
		r.budgets[k].suppressed.Add(1)
	}
}

// Run writes events until ctx is done, and then those that still wait. Where the
// log is too slow for these, the rest counts as suppressed.
func (r *Recorder) Run(ctx context.Context) {
	var renewing sync.WaitGroup
	for k := drop; k < kinds; k++ {
		renewing.Go(func() { r.renew(ctx, k) })
	}
	defer renewing.Wait()
	for ctx.Err() == nil {
		select {
		case q := <-r.queue:
			r.write(q)
		case <-ctx.Done():
		}
	}
	for begun := time.Now(); len(r.queue) > 0; {
		switch q := <-r.queue; {
		case time.Since(begun) < lastPatience:
			r.write(q)
		case q.Kind != "":
			r.budgets[q.kind].suppressed.Add(1)
		}
	}
	for k := drop; k < kinds; k++ {
		r.write(queued{kind: k, suppressed: r.budgets[k].suppressed.Load()})
	}
}

// renew fills the budget of a kind once in each of the rate's whiles, until ctx
// is done. Where a while went by without an event to say how many were
// suppressed before, as at the end of a flood, it has that said by itself.
func (r *Recorder) renew(ctx context.Context, k kind) {
	b := &r.budgets[k]
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		rate := b.rate.Load()
		if rate.Count > 0 {
			ticker.Reset(rate.Per)
		}
		select {
		case <-ticker.C:
			idle := b.left.Swap(int64(rate.Count)) == int64(rate.Count)
			if n := b.suppressed.Load(); idle && n > b.reported.Load() {
				select {
				case r.queue <- queued{kind: k, suppressed: n}:
				default: // the log is slow: later
				}
			}
		case <-b.renewed:
		case <-ctx.Done():
			return
		}
	}
}

// write tells of an event, or of a count alone. An event that the log does not
// take, as where its disk is full, is told to those who look at the status all
// the same.
func (r *Recorder) write(q queued) {
	b := &r.budgets[q.kind]
	if reported := b.reported.Load(); q.suppressed > reported { // two may have come out of turn
		q.Suppressed = q.suppressed - reported
		b.reported.Store(q.suppressed)
	}
	if q.Kind == "" {
		if q.Suppressed > 0 && r.log.Enabled(context.Background(), slog.LevelInfo) {
			count := slog.NewRecord(time.Now(), slog.LevelInfo, "suppressed", 0)
			count.AddAttrs(slog.String("kind", kindNames[q.kind]), slog.Uint64("suppressed", q.Suppressed))
			_ = r.log.Handle(context.Background(), count) // the status has the count, too
		}
		return
	}
	r.mu.Lock()
	if len(r.last) == Kept {
		r.last = slices.Delete(r.last, 0, 1)
	}
	r.last = append(r.last, q.Event)
	r.mu.Unlock()
	if !r.log.Enabled(context.Background(), slog.LevelInfo) || q.log(r.log) == nil {
		r.told.Add(1)
		return
	}
	r.failed.Add(1)
}

// Last returns the last events, newest first.
func (r *Recorder) Last() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := append([]Event{}, r.last...) // never nil, which JSON tells from none
	slices.Reverse(last)
	return last
}

// Counts returns how many events were told, and how many were not: there were
// too many, or the log did not take them.
func (r *Recorder) Counts() (told, suppressed uint64) {
	suppressed = r.failed.Load()
	for k := drop; k < kinds; k++ {
		suppressed += r.budgets[k].suppressed.Load()
	}
	return r.told.Load(), suppressed
}

// NewHandler returns a handler for records in the format of a configuration.
func NewHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
