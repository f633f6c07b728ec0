package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/terminal"
	"fragwall/rules"
	"fragwall/wire"
)

// Requests with a [listing.Query] as their argument. The comment names the answer.
const (
	requestFlows       = "flows"        // [About], then batches of flows
	requestCountFlows  = "count-flows"  // [Counted]
	requestDeleteFlows = "delete-flows" // [Deleted]
)

// About describes the list that follows.
type About struct {
	Stateful bool // whether the policy tracks flows
}

// Counted is the number of flows that a query selects.
type Counted struct {
	Flows int `json:"flows"`
}

// Deleted is the number of deleted flows.
type Deleted struct {
	Flows int `json:"deleted"`
}

// deletion is the argument of requestDeleteFlows.
type deletion struct {
	listing.Query
	All bool `json:"all,omitempty"` // required if the query selects all flows
}

// Box is the instance that requests are about.
type Box struct {
	*listing.Lister
	Bump   *wire.Bump
	Config func() *rules.Config // configuration in force
	Log    *slog.Logger
	// Change runs a function that changes the box. It fails if the box may no longer be
	// changed.
	Change func(change func() error) error
}

// Streams returns the handlers for requests about a box.
func Streams(b Box) control.Streams {
	s := &server{b}
	return control.Streams{
		requestFlows: s.flows, requestCountFlows: s.countFlows, requestDeleteFlows: s.deleteFlows,
		requestWaiting: s.waiting, requestSources: s.sources,
		requestExplain: s.explain,
	}
}

type server struct{ Box }

// readQuery decodes the argument of a request into to. q is the query within to.
func readQuery(argument json.RawMessage, to any, q *listing.Query) error {
	err := json.Unmarshal(argument, to)
	if err == nil {
		err = q.Check()
	}
	if err != nil {
		return &exit.UsageError{Err: err}
	}
	return nil
}

func (s *server) flows(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
	var q listing.Query
	if err := readQuery(argument, &q, &q); err != nil {
		return err
	}
	if err := to.SendJSON(About{s.Stateful()}); err != nil {
		return err
	}
	batch := &listing.Batch{Send: to.Send}
	if err := s.Flows(ctx, q, batch.Add); err != nil {
		return err
	}
	return batch.Flush()
}

func (s *server) countFlows(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
	var q listing.Query
	if err := readQuery(argument, &q, &q); err != nil {
		return err
	}
	n, err := s.CountFlows(ctx, q)
	if err != nil {
		return err
	}
	return to.SendJSON(Counted{n})
}

func (s *server) deleteFlows(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
	var d deletion
	err := readQuery(argument, &d, &d.Query)
	if err == nil && len(d.Selector) == 0 && !d.All {
		err = exit.Usagef("deletion without a filter; add one, or --all for all flows")
	}
	uid, pid := to.Client()
	by := []any{"filter", d.Selector.String(), "uid", uid, "pid", pid}
	if err != nil {
		s.Log.Warn("flow deletion refused", append(by, "error", err)...)
		return err
	}
	n := 0
	err = s.Change(func() (err error) {
		n, err = s.DeleteFlows(ctx, d.Query)
		return err
	})
	if errors.Is(err, control.ErrReplaced) {
		return err
	}
	s.Log.Info("flows deleted", append([]any{"flows", n}, by...)...)
	if err != nil {
		return fmt.Errorf("%s deleted, then: %w", terminal.Count(n, "flow"), err)
	}
	return to.SendJSON(Deleted{n})
}

// Client sends requests to an instance.
type Client struct{ control.Instance }

// Flows calls each with each flow that a query selects, in the order of the query. A flow is
// valid until each returns.
func (c Client) Flows(ctx context.Context, q listing.Query, each func(*listing.Flow) error) (about About, err error) {
	var all []listing.Flow
	keep := each
	if q.Unsorted() {
		keep = func(f *listing.Flow) error { all = append(all, *f); return nil }
	}
	var reader listing.Reader
	first := true
	err = c.Follow(ctx, requestFlows, q, func(record []byte) error {
		if first {
			first = false
			return json.Unmarshal(record, &about)
		}
		return reader.Read(record, keep)
	})
	if err != nil {
		return about, err
	}
	for _, f := range q.Sorted(all) {
		if err := each(&f); err != nil {
			return about, err
		}
	}
	return about, nil
}

// CountFlows returns the number of flows that a query selects.
func (c Client) CountFlows(ctx context.Context, q listing.Query) (n Counted, err error) {
	err = c.ask(ctx, requestCountFlows, q, &n)
	return n, err
}

// DeleteFlows deletes the flows that a query selects. A query without a selector is refused
// unless all is set.
func (c Client) DeleteFlows(ctx context.Context, q listing.Query, all bool) (n Deleted, err error) {
	err = c.ask(ctx, requestDeleteFlows, deletion{q, all}, &n)
	return n, err
}

// ask decodes an answer of one record.
func (c Client) ask(ctx context.Context, request string, argument, answer any) error {
	return c.Follow(ctx, request, argument, func(record []byte) error { return json.Unmarshal(record, answer) })
}
