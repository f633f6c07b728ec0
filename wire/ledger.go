package wire

import (
	"sync"

	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// ledger counts the frames that the table holds and drops.
type ledger struct {
	waiting  [verdict.Sides]*Counters
	observer Observer // nil where nobody observes
}

var _ stack.Ledger = (*ledger)(nil)

// decisions are those on what waited in vain.
var decisions = sync.Pool{New: func() any { return new(Decision) }}

func (l *ledger) Held(d *stack.Datagram) { l.waiting[d.Side()].waiting.Add(1) }

func (l *ledger) Dropped(d *stack.Datagram, why verdict.Reason) {
	l.waiting[d.Side()].dropWaiting(d.Len(), why)
	v := filter.Verdict{Reason: why}
	if l.observer == nil || d.Len() == 0 {
		return
	}
	to := l.observer.Wants(v, nil)
	if to == nil {
		return
	}
	gone := decisions.Get().(*Decision)
	*gone = Decision{From: d.Side(), Verdict: v, Fragments: d.Len(), datagram: d}
	to.Decided(gone)
	decisions.Put(gone)
}
