package inspect

import (
	"context"
	"encoding/json"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/listing"
)

// Requests with a [listing.Query] as their argument. The comment names the answer.
const (
	requestWaiting = "waiting" // records of [listing.Waiting]
	requestSources = "sources" // records of [listing.Source]
)

func (s *server) waiting(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
	var q listing.Query
	if err := readQuery(argument, &q, &q); err != nil {
		return err
	}
	return s.Waiting(ctx, q, func(w *listing.Waiting) error { return to.SendJSON(w) })
}

func (s *server) sources(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
	var q listing.Query
	if err := readQuery(argument, &q, &q); err != nil {
		return err
	}
	sources, err := s.Sources(ctx, q)
	if err != nil {
		return err
	}
	for i := range sources {
		if err := to.SendJSON(&sources[i]); err != nil {
			return err
		}
	}
	return nil
}

// Waiting returns the incomplete datagrams that a query selects, oldest first.
func (c Client) Waiting(ctx context.Context, q listing.Query) ([]listing.Waiting, error) {
	all, err := collect[listing.Waiting](ctx, c, requestWaiting, q)
	return listing.OldestFirst(all, q.Limit), err
}

// Sources returns the sources of the incomplete datagrams that a query selects, most memory
// first.
func (c Client) Sources(ctx context.Context, q listing.Query) ([]listing.Source, error) {
	return collect[listing.Source](ctx, c, requestSources, q)
}

// collect decodes all records of an answer.
func collect[T any](ctx context.Context, c Client, request string, argument any) (all []T, err error) {
	err = c.Follow(ctx, request, argument, func(record []byte) error {
		var one T
		err := json.Unmarshal(record, &one)
		all = append(all, one)
		return err
	})
	return all, err
}
