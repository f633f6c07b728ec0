package events

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

const (
	// slots is the number of budgets per kind of event: enough for each reason and some
	// hundreds of rules. Subjects that find no free slot share one budget.
	slots  = 512
	probes = 8 // number of slots that a subject may be in
	// busySubjects is the number of subjects that get the full rate at the same time. If more
	// are busy, they share the rate of this number, and each gets at least one event.
	busySubjects = 10
	// idlePeriods is the number of periods without an event after which a slot becomes free.
	idlePeriods = 60
)

// subject is what has a budget of its own, so that many events of one subject do not hide those
// of another.
type subject struct {
	reason     verdict.Reason
	rule       string // rule that decided, or whose limit was exceeded
	background background
}

var seed = maphash.MakeSeed()

// subjectOf returns the subject of a verdict of table t on packet p.
func subjectOf(t *filter.Table, v filter.Verdict, p *packet.Parsed) subject {
	s := subject{reason: v.Reason, background: backgroundOf(p)}
	switch {
	case v.Rule != 0:
		s.rule = t.Rule(v.Rule).Name
	case v.OverLimit != 0:
		s.rule = t.Rule(v.OverLimit).Name
	}
	return s
}

// slot returns the first slot that the subject may be in.
func (s *subject) slot() uint64 {
	n := uint64(s.reason)<<8 | uint64(s.background)
	if s.rule != "" {
		n ^= maphash.String(seed, s.rule)
	}
	return n * 0x9e3779b97f4a7c15 >> 32 // the golden ratio: spreads similar numbers
}

// budget is the number of events of a subject that may still be logged in this period.
type budget struct {
	subject    atomic.Pointer[subject] // nil if the slot is free
	left       atomic.Int64
	suppressed atomic.Uint64 // since the start, for all subjects of the slot
	reported   atomic.Uint64 // reported part of suppressed; only the writing goroutine sets it
	idle       int           // periods; only the renewing goroutine uses it
}

// take takes one event from the budget. If there is none left, it counts the event as
// suppressed and reports false.
func (b *budget) take() bool {
	if b.left.Load() > 0 && b.left.Add(-1) >= 0 {
		return true
	}
	b.suppressed.Add(1)
	return false
}

// budgets are the budgets of one kind of event.
type budgets struct {
	slots   [slots]budget
	others  budget // of subjects without a slot
	rate    atomic.Pointer[filter.Rate]
	portion atomic.Int64  // events per subject and period
	renewed chan struct{} // the rate was changed
}

func newBudgets(rate filter.Rate) *budgets {
	b := &budgets{renewed: make(chan struct{}, 1)}
	b.others.subject.Store(&subject{})
	b.set(rate)
	return b
}

// set changes the rate, which applies to the rest of the period at once.
func (b *budgets) set(rate filter.Rate) {
	if old := b.rate.Swap(&rate); old != nil && *old == rate {
		return
	}
	b.portion.Store(int64(rate.Count))
	b.each(func(one *budget, s *subject) { one.left.Store(b.full(s)) })
	select {
	case b.renewed <- struct{}{}:
	default:
	}
}

// full returns the budget of a subject per period. For background, one event per period
// suffices.
func (b *budgets) full(s *subject) int64 {
	portion := b.portion.Load()
	if s.background != foreground && portion != int64(rules.All.Count) {
		return min(portion, 1)
	}
	return portion
}

// each calls f for every budget that has a subject.
func (b *budgets) each(f func(*budget, *subject)) {
	for i := range b.slots {
		if s := b.slots[i].subject.Load(); s != nil {
			f(&b.slots[i], s)
		}
	}
	f(&b.others, b.others.subject.Load())
}

// of returns the budget of a subject. If two goroutines ask for a new subject at the same time,
// each may get its own budget.
func (b *budgets) of(s subject) *budget {
	first := s.slot()
	var free *budget
	for i := range uint64(probes) {
		one := &b.slots[(first+i)%slots]
		switch owner := one.subject.Load(); {
		case owner == nil && free == nil:
			free = one
		case owner != nil && *owner == s:
			return one
		}
	}
	if free == nil || !b.give(free, s) {
		return &b.others
	}
	return free
}

// give gives a free budget to a subject. It reports false if the budget was given to another
// subject in the meantime.
func (b *budgets) give(free *budget, s subject) bool {
	free.left.Store(b.full(&s))
	return free.subject.CompareAndSwap(nil, &s)
}

// suppressed returns the number of suppressed events.
func (b *budgets) suppressed() uint64 {
	n := b.others.suppressed.Load()
	for i := range b.slots {
		n += b.slots[i].suppressed.Load()
	}
	return n
}

// renew begins a period. It fills the budgets, and calls count for each budget that had no
// event in the last period but has unreported suppressed events, as after a flood.
func (b *budgets) renew(rate filter.Rate, count func(*budget, *subject)) {
	busy := 0
	idle := func(one *budget, s *subject) bool { return one.left.Load() == b.full(s) }
	b.each(func(one *budget, s *subject) {
		switch {
		case !idle(one, s):
			busy++
			one.idle = 0
		case one.suppressed.Load() > one.reported.Load():
			count(one, s)
		default:
			one.idle++
		}
	})
	portion := int64(rate.Count)
	if busy > busySubjects && rate != rules.All {
		portion = max(1, int64(float64(portion)*busySubjects/float64(busy)))
	}
	b.portion.Store(portion)
	b.each(func(one *budget, s *subject) {
		one.left.Store(b.full(s))
		if one.idle >= idlePeriods && one != &b.others {
			one.idle = 0
			one.subject.Store(nil)
		}
	})
}

// run renews the budgets once per period of the rate, until done is closed.
func (b *budgets) run(done <-chan struct{}, count func(*budget, *subject)) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		rate := *b.rate.Load()
		if rate.Count > 0 {
			ticker.Reset(rate.Per)
		}
		select {
		case <-ticker.C:
			b.renew(rate, count)
		case <-b.renewed:
		case <-done:
			return
		}
	}
}
