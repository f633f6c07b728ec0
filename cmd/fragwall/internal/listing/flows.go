package listing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

const (
	// pace is how many entries are looked at in a second, for all clients together: a
	// million in less than two seconds.
	pace = 750_000
	// paceBurst are looked at without a pause after one that was longer than it should
	// be.
	paceBurst = 32 << 10
	// paceStep is after how many entries there may be a pause.
	paceStep = 4 << 10
)

// Lister lists what a wire knows.
type Lister struct {
	bump *wire.Bump
	pace *rate.Limiter
}

// New returns a lister of a wire. There should be one, since each has a pace of its
// own.
func New(b *wire.Bump) *Lister { return &Lister{b, rate.NewLimiter(pace, paceBurst)} }

// Order is by what flows are sorted, the greatest first.
type Order string

// The orders of flows.
const (
	ByBytes   Order = "bytes"   // of both directions
	ByPackets Order = "packets" // likewise
	ByAge     Order = "age"
	ByIdle    Order = "idle"
)

// Orders are all of them.
var Orders = []Order{ByBytes, ByPackets, ByAge, ByIdle}

// Query says which entries are wanted. The zero value stands for all of them, in no
// order.
type Query struct {
	Selector selector.Selector `json:"selector,omitempty"`
	Sort     Order             `json:"sort,omitempty"`
	Limit    int               `json:"limit,omitempty"` // entries; 0: all of them
}

// maxSorted is the largest limit that a lister sorts by, which bounds its memory: who
// wants more in order gets all of them, and has to sort.
const maxSorted = 10_000

// Check says what is wrong with a query, by the names of the flags.
func (q *Query) Check() error {
	switch {
	case q.Sort != "" && !slices.Contains(Orders, q.Sort):
		return fmt.Errorf("--sort: %q is not an order; want bytes, packets, age or idle", q.Sort)
	case q.Limit < 0:
		return fmt.Errorf("-n: %d is not a number of lines; want 0 or more", q.Limit)
	}
	_, err := q.Selector.Filter()
	return err
}

// Unsorted reports whether a lister lists all that a query selects, in no order, for who
// asks to sort ([Query.Sorted]).
func (q *Query) Unsorted() bool { return q.Sort != "" && (q.Limit == 0 || q.Limit > maxSorted) }

// pauses returns what has a walk keep the pace, until ctx is done.
func (l *Lister) pauses(ctx context.Context) flow.Pause {
	looked := 0
	return func(n int) error {
		if looked += n; looked < paceStep {
			return ctx.Err()
		}
		step := looked
		looked = 0
		return l.pace.WaitN(ctx, step)
	}
}

// Stateful reports whether there are flows at all.
func (l *Lister) Stateful() bool { return l.bump.Policy().Policy().Stateful }

// errEnough ends a walk that has all that is wanted.
var errEnough = errors.New("enough")

// Flows calls yield with each flow that a query wants, which is valid until it returns,
// until there is an error. They are in the query's order unless it is [Query.Unsorted].
func (l *Lister) Flows(ctx context.Context, q Query, yield func(*Flow) error) error {
	if q.Sort != "" && !q.Unsorted() {
		flows, _, err := l.TopFlows(ctx, q)
		for i := range flows {
			if err = yield(&flows[i]); err != nil {
				break
			}
		}
		return err
	}
	var record Flow
	listed := 0
	err := l.eachFlow(ctx, q, func(e *entry) error {
		e.record(&record)
		if err := yield(&record); err != nil {
			return err
		}
		if listed++; q.Sort == "" && listed == q.Limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// TopFlows returns the first flows of a query's order, as many as its limit, and how
// many match.
func (l *Lister) TopFlows(ctx context.Context, q Query) (flows []Flow, matched int, err error) {
	t := top[Flow]{limit: min(q.Limit, maxSorted)}
	err = l.eachFlow(ctx, q, func(e *entry) error {
		matched++
		if r := t.place(e.weight(q.Sort)); r != nil {
			e.record(r)
		}
		return nil
	})
	return t.sorted(), matched, err
}

// CountFlows returns how many flows a query selects.
func (l *Lister) CountFlows(ctx context.Context, q Query) (n int, err error) {
	err = l.eachFlow(ctx, q, func(*entry) error { n++; return nil })
	return n, err
}

// DeleteFlows ends the flows that a query selects, and returns how many, also where it
// fails: what comes of them afterwards is judged as if there had been none.
func (l *Lister) DeleteFlows(ctx context.Context, q Query) (n int, err error) {
	matches, err := q.Selector.Filter()
	if err != nil {
		return 0, err
	}
	var p packet.Parsed
	return l.bump.Policy().DeleteFlows(l.bump.Elapsed, l.pauses(ctx), func(f *flow.Flow, _ time.Duration) bool {
		t := tupleOf(f, &p)
		return matches.Matches(&t)
	})
}

// entry is a flow in a walk: a copy, that is valid during the visit.
type entry struct {
	flow  *flow.Flow
	first packet.Parsed // its first datagram
	table *filter.Table
	now   time.Duration
}

func (e *entry) record(r *Flow) { r.set(e.flow, &e.first, e.table, e.now) }

// weight returns by how much a flow comes before others.
func (e *entry) weight(by Order) uint64 {
	a, b := e.flow.Sent(verdict.Inside), e.flow.Sent(verdict.Outside)
	switch by {
	case ByBytes:
		return a.Bytes + b.Bytes
	case ByPackets:
		return a.Packets + b.Packets
	case ByAge:
		return uint64(e.flow.Age(e.now))
	case ByIdle:
		return uint64(e.flow.Idle(e.now))
	}
	return 0
}

// eachFlow calls visit with each flow that a query selects.
func (l *Lister) eachFlow(ctx context.Context, q Query, visit func(*entry) error) error {
	matches, err := q.Selector.Filter()
	if err != nil {
		return err
	}
	e := &entry{table: l.bump.Policy()}
	return e.table.WalkFlows(l.bump.Elapsed, l.pauses(ctx), func(f *flow.Flow, now time.Duration) error {
		e.flow, e.now = f, now
		if t := tupleOf(f, &e.first); !matches.Matches(&t) {
			return nil
		}
		return visit(e)
	})
}
