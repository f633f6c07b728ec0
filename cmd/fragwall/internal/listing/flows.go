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
	// pace is the maximum number of entries read per second, for all clients together. A
	// million entries take less than two seconds.
	pace = 750_000
	// paceBurst is the maximum number of entries read without a pause, after a longer pause
	// than necessary.
	paceBurst = 32 << 10
	// paceStep is the number of entries between two waits for the limiter.
	paceStep = 4 << 10
)

// Lister lists the flows and incomplete datagrams of a wire.
type Lister struct {
	bump *wire.Bump
	pace *rate.Limiter
}

// New returns a lister of a wire. Use one per wire, because each lister has its own pace.
func New(b *wire.Bump) *Lister { return &Lister{b, rate.NewLimiter(pace, paceBurst)} }

// Order is a sort order of flows, greatest first.
type Order string

// Sort orders of flows.
const (
	ByBytes   Order = "bytes"   // both directions together
	ByPackets Order = "packets" // both directions together
	ByAge     Order = "age"
	ByIdle    Order = "idle"
)

// Orders are all sort orders.
var Orders = []Order{ByBytes, ByPackets, ByAge, ByIdle}

// Query selects entries. The zero value selects all of them, in no order.
type Query struct {
	Selector selector.Selector `json:"selector,omitempty"`
	Sort     Order             `json:"sort,omitempty"`
	Limit    int               `json:"limit,omitempty"` // maximum number of entries; 0 for all
}

// maxSorted is the largest limit up to which a lister sorts, which bounds its memory. For more
// entries, it lists all of them unsorted, and the client sorts.
const maxSorted = 10_000

// Check returns an error if the query is invalid. The error names the flags.
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

// Unsorted reports whether a lister lists all selected entries unsorted, although the query has
// an order. The client sorts them ([Query.Sorted]).
func (q *Query) Unsorted() bool { return q.Sort != "" && (q.Limit == 0 || q.Limit > maxSorted) }

// pauses returns a function that a walk calls with the number of entries that it has read. It
// waits to keep the pace, and fails once ctx is done.
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

// Stateful reports whether the policy in force tracks flows.
func (l *Lister) Stateful() bool { return l.bump.Policy().Policy().Stateful }

// errEnough ends a walk at the limit of the query.
var errEnough = errors.New("enough")

// Flows calls yield with each selected flow until it returns an error. The flow is valid until
// yield returns. Flows come in the order of the query unless it is [Query.Unsorted].
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

// TopFlows returns the first flows in the order of the query, up to its limit, and the number
// of flows that match.
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

// CountFlows returns the number of selected flows.
func (l *Lister) CountFlows(ctx context.Context, q Query) (n int, err error) {
	err = l.eachFlow(ctx, q, func(*entry) error { n++; return nil })
	return n, err
}

// DeleteFlows deletes the selected flows and returns how many, also with an error. The rules
// judge their next datagrams as if there had been no flow.
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

// entry is a flow during a walk. It is a copy, valid during the visit.
type entry struct {
	flow  *flow.Flow
	first packet.Parsed // first datagram of the flow
	table *filter.Table
	now   time.Duration
}

func (e *entry) record(r *Flow) { r.set(e.flow, &e.first, e.table, e.now) }

// weight returns the value that an order sorts by.
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

// eachFlow calls visit with each selected flow.
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
