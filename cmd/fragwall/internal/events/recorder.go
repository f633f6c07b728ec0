package events

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// MatchRate is the maximum rate of logged events per rule with log = true. It is more than a
// person can read and less than a disk notices.
var MatchRate = filter.Rate{Count: 10, Per: time.Second}

const (
	// queueLength is the maximum number of events that wait for the log.
	queueLength = 1024
	// lastTimeout is the maximum time for writing the queued events at the end. The log has one
	// second at the end, which must suffice for the counters as well.
	lastTimeout = 500 * time.Millisecond
	// Kept is the number of latest events that are kept.
	Kept = 200
)

// kind is a kind of event. Each kind has its own rate.
type kind int

const (
	none kind = iota
	drop
	match
	kinds
)

var kindNames = [kinds]string{drop: "drop", match: "match"}

// Recorder is an observer that logs some of the decisions.
type Recorder struct {
	log     slog.Handler
	budgets [kinds]*budgets
	queue   chan queued

	links          budget        // for link events, which are not limited
	logged, failed atomic.Uint64 // of all kinds, including those of a process that this one took over from

	mu sync.Mutex
	// mu guards:
	last []record.Event // oldest first, at most Kept
}

var _ wire.Observer = (*Recorder)(nil)

// queued is an event, or only a count of suppressed events, that waits for the log.
type queued struct {
	event      record.Event // for a count, only the subject
	count      bool
	budget     *budget
	suppressed uint64 // by the budget before this event
}

// NewRecorder returns a recorder that logs drops at a limited rate, see [rules.Log].
func NewRecorder(log slog.Handler, drops filter.Rate) *Recorder {
	r := &Recorder{log: log, queue: make(chan queued, queueLength)}
	r.budgets[match], r.budgets[drop] = newBudgets(MatchRate), newBudgets(drops)
	return r
}

// SetDrops changes the rate of drop events.
func (r *Recorder) SetDrops(rate filter.Rate) { r.budgets[drop].set(rate) }

// kindOf returns the kind of event for a verdict.
func kindOf(v filter.Verdict) kind {
	switch {
	case v.Has(filter.Logged):
		return match
	case v.Action != verdict.Accept:
		return drop
	}
	return none
}

// Wants implements [wire.Observer]. It asks for as many decisions as the budgets allow.
func (r *Recorder) Wants(t *filter.Table, v filter.Verdict, p *packet.Parsed) wire.Reporter {
	k := kindOf(v)
	if k == none || r.budgets[k].rate.Load().Count == 0 {
		return nil // events that were not requested do not count as suppressed
	}
	s := subjectOf(t, v, p)
	b := r.budgets[k].of(s)
	if !b.take() {
		return nil
	}
	return &sample{r, k, s.background, b, b.suppressed.Load()}
}

// sample is a decision that the budget allows to log.
type sample struct {
	recorder   *Recorder
	kind       kind
	background background
	budget     *budget
	suppressed uint64 // by the budget before this event
}

// Decided implements [wire.Reporter]. It puts the event into the queue.
func (s *sample) Decided(d *wire.Decision) {
	e := newEvent(s.kind, s.background, d, time.Now())
	select {
	case s.recorder.queue <- queued{event: e, budget: s.budget, suppressed: s.suppressed}:
	default:
		s.budget.suppressed.Add(1)
	}
}

// Link logs that the link of a side's device went up or down.
func (r *Recorder) Link(side, device string, up bool, at time.Time) {
	e := record.Event{Kind: "link", Decision: record.Decision{Time: at, From: side}, Device: device, Link: "down"}
	if up {
		e.Link = "up"
	}
	r.enqueue(queued{event: e, budget: &r.links})
}

// Run writes events until ctx is done, and then the queued ones. If the log is too slow for
// these, the rest counts as suppressed.
func (r *Recorder) Run(ctx context.Context) {
	var renewing sync.WaitGroup
	for k := drop; k < kinds; k++ {
		renewing.Go(func() { r.budgets[k].run(ctx.Done(), r.counter(k, r.enqueue)) })
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
		case time.Since(begun) < lastTimeout:
			r.write(q)
		case !q.count:
			q.budget.suppressed.Add(1)
		}
	}
	for k := drop; k < kinds; k++ {
		r.budgets[k].each(r.counter(k, r.write))
	}
}

// counter returns a function that passes the count of a budget's suppressed events to write.
func (r *Recorder) counter(k kind, write func(queued)) func(*budget, *subject) {
	return func(b *budget, s *subject) {
		e := record.Event{Kind: kindNames[k], Background: backgroundNames[s.background]}
		e.Rule = s.rule
		if s.reason != verdict.Passed {
			e.Reason = s.reason.String()
		}
		write(queued{event: e, count: true, budget: b, suppressed: b.suppressed.Load()})
	}
}

// enqueue queues an event, unless the queue is full.
func (r *Recorder) enqueue(q queued) {
	select {
	case r.queue <- q:
	default:
	}
}

// write logs an event, or only a count. The status shows the event also if the log fails, for
// example because its disk is full.
func (r *Recorder) write(q queued) {
	if reported := q.budget.reported.Load(); q.suppressed > reported { // events may be queued out of order
		q.event.Suppressed = q.suppressed - reported
		q.budget.reported.Store(q.suppressed)
	}
	if q.count {
		if q.event.Suppressed > 0 && r.log.Enabled(context.Background(), slog.LevelInfo) {
			_ = logCount(&q.event, r.log) // the status has the count as well
		}
		return
	}
	r.mu.Lock()
	if len(r.last) == Kept {
		r.last = slices.Delete(r.last, 0, 1)
	}
	r.last = append(r.last, q.event)
	r.mu.Unlock()
	if logEvent(&q.event, r.log) == nil {
		r.logged.Add(1)
		return
	}
	r.failed.Add(1)
}

// Last returns the latest events, newest first.
func (r *Recorder) Last() []record.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := append([]record.Event{}, r.last...) // never nil, which JSON would encode as null
	slices.Reverse(last)
	return last
}

// Counts returns the number of events that were logged, and the number that were not, because
// there were too many or the log failed.
func (r *Recorder) Counts() (logged, suppressed uint64) {
	suppressed = r.failed.Load()
	for k := drop; k < kinds; k++ {
		suppressed += r.budgets[k].suppressed()
	}
	return r.logged.Load(), suppressed
}

// Saved is the state of a recorder, for the recorder of another process.
type Saved struct {
	Logged     uint64         `json:"logged"`
	Suppressed uint64         `json:"suppressed"`
	Last       []record.Event `json:"last"` // newest first
}

// Save returns the state of the recorder.
func (r *Recorder) Save() Saved {
	s := Saved{Last: r.Last()}
	s.Logged, s.Suppressed = r.Counts()
	return s
}

// Restore continues from the state of another recorder. Call it before the recorder has
// recorded anything.
func (r *Recorder) Restore(s Saved) {
	r.logged.Store(s.Logged)
	r.failed.Store(s.Suppressed)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = s.Last
	slices.Reverse(r.last)
}

// NewHandler returns a handler for log records. format is "json", or otherwise text.
func NewHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
