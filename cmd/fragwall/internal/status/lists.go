package status

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/cmd/fragwall/internal/selector"
)

const (
	standardListed = 100  // default number of entries in an answer
	maxListed      = 1000 // maximum number of entries in an answer
	listingTimeout = 20 * time.Second
)

// FlowList is the answer of /api/flows.
type FlowList struct {
	Flows   []listing.Flow `json:"flows"`   // the first ones in the order
	Matched int            `json:"matched"` // number of flows that match, including those not listed
}

// WaitingList is the answer of /api/waiting.
type WaitingList struct {
	Waiting []listing.Waiting `json:"waiting"` // oldest first
}

// SourceList is the answer of /api/sources.
type SourceList struct {
	Sources []listing.Source `json:"sources"` // most memory first
}

// listed answers with a list. Lists contain addresses, so clients always need a token: any user
// of the machine can reach a server on loopback. Only one list is made at a time.
func (s *Server) listed(list func(context.Context, listing.Query) (any, error)) http.Handler {
	return s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.token == "" {
			http.Error(w, "lists name hosts and require a token: set status.token_file, or use \"fragwall flows\" and \"fragwall waiting\"", http.StatusForbidden)
			return
		}
		q, err := query(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case s.listing <- struct{}{}:
			defer func() { <-s.listing }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "another list is in progress", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), listingTimeout)
		defer cancel()
		a, err := list(ctx, q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		answer(w, a)
	}))
}

// query returns the query of a request. Its parameters are those of the selector, sort and n.
func query(r *http.Request) (q listing.Query, err error) {
	q = listing.Query{Selector: selector.Selector{}, Limit: standardListed}
	for key, values := range r.URL.Query() {
		switch value := values[len(values)-1]; key {
		case "sort":
			q.Sort = listing.Order(value)
		case "n":
			if q.Limit, err = strconv.Atoi(value); err != nil || q.Limit < 1 || q.Limit > maxListed {
				return q, fmt.Errorf("n: want a number of 1 to %d", maxListed)
			}
		default:
			q.Selector[key] = value
		}
	}
	return q, q.Check()
}

func (s *Server) listWaiting(ctx context.Context, q listing.Query) (any, error) {
	list := WaitingList{Waiting: []listing.Waiting{}}
	err := s.lister.Waiting(ctx, q, func(d *listing.Waiting) error {
		list.Waiting = append(list.Waiting, *d)
		return nil
	})
	return list, err
}

func (s *Server) listSources(ctx context.Context, q listing.Query) (any, error) {
	sources, err := s.lister.Sources(ctx, q)
	return SourceList{sources}, err
}

func (s *Server) listFlows(ctx context.Context, q listing.Query) (any, error) {
	if q.Sort == "" {
		q.Sort = listing.ByBytes
	}
	flows, matched, err := s.lister.TopFlows(ctx, q)
	return FlowList{flows, matched}, err
}
