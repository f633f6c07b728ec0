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

// Hub observes the wire for those who look, and for another observer.
type Hub struct {
	next    wire.Observer
	observe func(wire.Observer) // has the wire call an observer from now on
	policy  func() *filter.Table
	watch   func(match func(*flow.Key) bool)
	shed    func(verdict.Side) uint64 // fragments that nobody is told of

	mu       sync.Mutex // held while the clients change
	sessions atomic.Pointer[[]*session]
}

// NewHub returns a hub for a wire that has an observer. By watch it has the flows that
// match go through the wire, and not by a fast path; nil stands for none.
func NewHub(b *wire.Bump, next wire.Observer, watch func(match func(*flow.Key) bool)) *Hub {
	h := &Hub{next: next, observe: b.Observe, policy: b.Policy, watch: watch, shed: b.Shed}
	h.sessions.Store(new([]*session))
	return h
}

// session is a client: what it wants, and what it is to get.
type session struct {
	matcher *matcher
	ring    *ring
}

// add has a client get what it wants.
func (h *Hub) add(s *session) {
	h.change(func(all []*session) []*session { return append(all, s) })
}

// remove ends that.
func (h *Hub) remove(s *session) {
	h.change(func(all []*session) []*session {
		return slices.DeleteFunc(all, func(other *session) bool { return other == s })
	})
}

// change changes a copy of the clients, and observes for as long as there are any.
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
	h.watch(h.watched) // again, as more may match
}

// watched reports whether any client may want frames of a flow. The fast path calls it
// with its locks held, so it must not call the wire.
func (h *Hub) watched(k *flow.Key) bool {
	return slices.ContainsFunc(*h.sessions.Load(), func(s *session) bool { return s.matcher.flow(k) })
}

var (
	_ wire.Observer = (*Hub)(nil)
	_ wire.Reporter = (*Hub)(nil)
	_ wire.Reporter = both{}
)

// Wants asks for the decisions that the other observer or any client wants.
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

// both has two told of a decision.
type both struct {
	next wire.Reporter
	hub  *Hub
}

// Decided tells both.
func (b both) Decided(d *wire.Decision) {
	b.next.Decided(d)
	b.hub.Decided(d)
}

// Decided offers a decision to the clients that want it.
func (h *Hub) Decided(d *wire.Decision) {
	at := time.Now()
	for _, s := range *h.sessions.Load() {
		if s.matcher.decided(d.Policy, d.Verdict) && s.matcher.packet(d.Parsed(), d.From) {
			s.ring.offer(d, at)
		}
	}
}
