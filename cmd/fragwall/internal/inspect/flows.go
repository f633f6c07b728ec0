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
	"fragwall/rules"
	"fragwall/wire"
)

// Requests, of which each has a [listing.Query] as its argument.
const (
	requestFlows       = "flows"        // [About], and batches of flows
	requestCountFlows  = "count-flows"  // [Counted]
	requestDeleteFlows = "delete-flows" // [Deleted]
)

// About is what there is to list.
type About struct {
	Stateful bool // else there are no flows
}

// Counted is how many flows a query selects.
type Counted struct {
	Flows int `json:"flows"`
}

// Deleted is how many flows were ended.
type Deleted struct {
	Flows int `json:"deleted"`
}

// deletion is what is to be deleted.
type deletion struct {
	listing.Query
	All bool `json:"all,omitempty"` // the query selects all flows on purpose
}

// Box is what requests are answered about.
type Box struct {
	*listing.Lister
	Bump   *wire.Bump
	Config func() *rules.Config // in force
	Log    *slog.Logger
	// Change runs what changes the box, or fails if nothing may change it any more.
	Change func(change func() error) error
}

// Streams answer requests about a box.
func Streams(b Box) control.Streams {
	s := &server{b}
	return control.Streams{
		requestFlows: s.flows, requestCountFlows: s.countFlows, requestDeleteFlows: s.deleteFlows,
		requestWaiting: s.waiting, requestSources: s.sources,
		requestExplain: s.explain,
	}
}

type server struct{ Box }

// readQuery reads the argument of a request into to, of which q is the query.
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
		return fmt.Errorf("%d flows deleted, then: %w", n, err)
	}
	return to.SendJSON(Deleted{n})
}

// Client asks an instance.
type Client struct{ control.Instance }

// Flows calls each with the flows that a query selects, in its order. A flow is valid
// until each returns.
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

// CountFlows returns how many flows a query selects.
func (c Client) CountFlows(ctx context.Context, q listing.Query) (n Counted, err error) {
	err = c.ask(ctx, requestCountFlows, q, &n)
	return n, err
}

// DeleteFlows ends the flows that a query selects: one that selects all of them only with
// all set.
func (c Client) DeleteFlows(ctx context.Context, q listing.Query, all bool) (n Deleted, err error) {
	err = c.ask(ctx, requestDeleteFlows, deletion{q, all}, &n)
	return n, err
}

// ask decodes the one record of an answer.
func (c Client) ask(ctx context.Context, request string, argument, answer any) error {
	return c.Follow(ctx, request, argument, func(record []byte) error { return json.Unmarshal(record, answer) })
}
