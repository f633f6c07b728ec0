package wire

import (
	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// ledger counts the frames that the table holds and drops, adds what it dropped to the reports
// of one goroutine, and tells that goroutine's lane which sources have credit.
type ledger struct {
	waiting  *[verdict.Sides]Counters
	observer *Observer // of the goroutine's current work; nil if there is none
	reports  *reports
	lane     tun.Lane // nil for a goroutine that takes in no fragments
}

var _ stack.Ledger = (*ledger)(nil)

func (l *ledger) Held(d *stack.Datagram) { l.waiting[d.Side()].waiting.Add(1) }

func (l *ledger) Credited(d *stack.Datagram) { l.lane.Credit(d.Src()) }

func (l *ledger) Dropped(d *stack.Datagram, why verdict.Reason) {
	l.waiting[d.Side()].dropWaiting(d.Len(), why)
	if observer := *l.observer; observer != nil && d.Len() > 0 {
		v := filter.Verdict{Reason: why}
		if to := observer.Wants(nil, v, nil); to != nil {
			r := l.reports.add(to)
			r.From, r.Verdict, r.Fragments, r.datagram = d.Side(), v, d.Len(), d
			l.reports.hold(d)
			return
		}
	}
	d.Release()
}
