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
	// slots is how many budgets there are of a kind: one for each reason, and for
	// some hundreds of rules. What finds none free shares one.
	slots  = 512
	probes = 8 // slots in which a subject may be
	// busySubjects is how many subjects get the whole rate at the same time. More
	// share what these may take, and get one event each at least.
	busySubjects = 10
	// idlePeriods is after how many periods without an event a slot is free again.
	idlePeriods = 60
)

// subject is what has a budget of its own, so that many events of one do not
// hide few of another.
type subject struct {
	reason     verdict.Reason
	rule       string // that decided, or whose limit was exceeded
	background background
}

var seed = maphash.MakeSeed()

// subjectOf returns the subject of a table's verdict on what was decoded.
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

// slot returns the first slot in which a subject may be.
func (s *subject) slot() uint64 {
	n := uint64(s.reason)<<8 | uint64(s.background)
	if s.rule != "" {
		n ^= maphash.String(seed, s.rule)
	}
	return n * 0x9e3779b97f4a7c15 >> 32 // the golden ratio: near numbers come apart
}

// budget is how many events of a subject may still be logged in this period.
type budget struct {
	subject    atomic.Pointer[subject] // nil where the slot is free
	left       atomic.Int64
	suppressed atomic.Uint64 // since the start, of all subjects that the slot had
	reported   atomic.Uint64 // of those; the goroutine that writes sets it
	idle       int           // periods; of the goroutine that renews
}

// take takes one from the budget, or counts one as suppressed.
func (b *budget) take() bool {
	if b.left.Load() > 0 && b.left.Add(-1) >= 0 {
		return true
	}
	b.suppressed.Add(1)
	return false
}

// budgets are those of one kind of events.
type budgets struct {
	slots   [slots]budget
	others  budget // of subjects without a slot
	rate    atomic.Pointer[filter.Rate]
	portion atomic.Int64  // of each subject, a period
	renewed chan struct{} // the rate was changed
}

func newBudgets(rate filter.Rate) *budgets {
	b := &budgets{renewed: make(chan struct{}, 1)}
	b.others.subject.Store(&subject{})
	b.set(rate)
	return b
}

// set changes the rate. It holds for what is left of the period.
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

// full returns what a subject has in each period. Of background, one event is
// enough to say that it is there.
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

// of returns the budget of a subject. Two goroutines that come at the same time
// with a new one may get a budget each.
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

// give gives a free budget to a subject, unless another one has it since.
func (b *budgets) give(free *budget, s subject) bool {
	free.left.Store(b.full(&s))
	return free.subject.CompareAndSwap(nil, &s)
}

// suppressed returns how many events were.
func (b *budgets) suppressed() uint64 {
	n := b.others.suppressed.Load()
	for i := range b.slots {
		n += b.slots[i].suppressed.Load()
	}
	return n
}

// renew begins a period: it fills the budgets, and calls count for each that had
// no event in the last one and has suppressed events to report, as at the end of
// a flood.
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

// run renews the budgets once in each of the rate's periods, until done.
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
