package trace

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// Hub observes the wire for its clients and for the next observer.
type Hub struct {
	next    wire.Observer
	observe func(wire.Observer) // sets the observer of the wire
	policy  func() *filter.Table
	watch   func(match func(*flow.Key) bool)
	shed    func(verdict.Side) uint64 // number of fragments shed by the devices of a side; the observer does not see them

	mu       sync.Mutex // held while the list of clients changes
	sessions atomic.Pointer[[]*session]
}

// NewHub returns a hub for a wire whose observer was next. watch sets which flows must go
// through the wire instead of the fast path: those that match. nil means none.
func NewHub(b *wire.Bump, next wire.Observer, watch func(match func(*flow.Key) bool)) *Hub {
	h := &Hub{next: next, observe: b.Observe, policy: b.Policy, watch: watch, shed: b.Shed}
	h.sessions.Store(new([]*session))
	return h
}

// session is one client: its request, and the ring that it reads.
type session struct {
	matcher *matcher
	ring    *ring
}

// add adds a client.
func (h *Hub) add(s *session) {
	h.change(func(all []*session) []*session { return append(all, s) })
}

// remove removes a client.
func (h *Hub) remove(s *session) {
	h.change(func(all []*session) []*session {
		return slices.DeleteFunc(all, func(other *session) bool { return other == s })
	})
}

// change replaces the list of clients by f of a copy. The hub observes the wire only while
// there are clients.
func (h *Hub) change(f func([]*session) []*session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := *h.sessions.Load()
	after := f(slices.Clone(before))
	h.sessions.Store(&after)
	switch {
	case len(after) == 0:
		h.watch(nil)
		h.observe(h.next)
		return
	case len(before) == 0:
		h.observe(h)
	}
	h.watch(h.watched) // the set of flows that match has changed
}

// watched reports whether any client may want frames of a flow. The fast path calls it with its
// locks held, so it must not call the wire.
func (h *Hub) watched(k *flow.Key) bool {
	return slices.ContainsFunc(*h.sessions.Load(), func(s *session) bool { return s.matcher.flow(k) })
}

var (
	_ wire.Observer = (*Hub)(nil)
	_ wire.Reporter = (*Hub)(nil)
	_ wire.Reporter = both{}
)

// Wants implements [wire.Observer]. It asks for the decisions that the next observer or any
// client wants.
func (h *Hub) Wants(t *filter.Table, v filter.Verdict, p *packet.Parsed) wire.Reporter {
	next := h.next.Wants(t, v, p)
	wanted := slices.ContainsFunc(*h.sessions.Load(), func(s *session) bool {
		return s.matcher.decided(t, v) && (p == nil || s.matcher.may(p))
	})
	switch {
	case !wanted:
		return next
	case next == nil:
		return h
	}
	return both{next, h}
}

// both reports a decision to the next observer's reporter and to the hub.
type both struct {
	next wire.Reporter
	hub  *Hub
}

// Decided implements [wire.Reporter].
func (b both) Decided(d *wire.Decision) {
	b.next.Decided(d)
	b.hub.Decided(d)
}

// Decided implements [wire.Reporter]. It offers a decision to the clients that want it.
func (h *Hub) Decided(d *wire.Decision) {
	at := time.Now()
	for _, s := range *h.sessions.Load() {
		if s.matcher.decided(d.Policy, d.Verdict) && s.matcher.packet(d.Parsed(), d.From) {
			s.ring.offer(d, at)
		}
	}
}
