package wire

import (
	"fragwall/filter"
	"fragwall/stack"
	"fragwall/tun"
)

// reports are the decisions that an observer asked for, and the frames and datagrams that must
// stay valid for them until the end of a batch.
type reports struct {
	pending   []report
	datagrams []*stack.Datagram
}

// report is a decision and its Reporter.
type report struct {
	to Reporter
	Decision
}

// add adds an empty report. Its address is valid until the next one is added.
func (r *reports) add(to Reporter) *Decision {
	r.pending = append(r.pending, report{to: to})
	return &r.pending[len(r.pending)-1].Decision
}

// hold keeps a datagram until the reports are made, and then releases it.
func (r *reports) hold(datagram *stack.Datagram) { r.datagrams = append(r.datagrams, datagram) }

// deliver makes the reports, in the order in which they were added, and releases what they
// refer to.
func (r *reports) deliver() {
	for i := range r.pending {
		r.pending[i].to.Decided(&r.pending[i].Decision)
	}
	for _, datagram := range r.datagrams {
		datagram.Release()
	}
	clear(r.pending)
	clear(r.datagrams)
	r.pending, r.datagrams = r.pending[:0], r.datagrams[:0]
}

// wants returns the Reporter for a verdict on what was decoded last; nil if there is none.
func (d *direction) wants(v filter.Verdict) Reporter {
	if d.batch.observer == nil {
		return nil
	}
	return d.batch.observer.Wants(d.judgedBy(v), v, &d.parsed)
}

// judgedBy returns the table that gave the verdict on what was decoded last; nil if no policy
// did.
func (d *direction) judgedBy(v filter.Verdict) *filter.Table {
	if v.Generation == 0 {
		return nil
	}
	return d.batch.policy
}

// observeFrame asks the observer about a verdict on a single frame, and adds a report if it
// wants one. Call it only if there is an observer.
func (d *direction) observeFrame(f *tun.Frame, v filter.Verdict, judged bool) {
	if to := d.wants(v); to != nil {
		d.reportFrame(to, v, f).Judged = judged
	}
}

// reportFrame adds a report of a verdict on a single frame, which is the one decoded last.
func (d *direction) reportFrame(to Reporter, v filter.Verdict, f *tun.Frame) *Decision {
	r := d.report(to, v)
	r.frame = f.Data
	if d.parsed.Fragment.Present {
		r.Fragments = 1
	}
	return r
}

// reportDatagram adds a report on the fragments of a datagram.
func (d *direction) reportDatagram(to Reporter, v filter.Verdict, datagram *stack.Datagram) *Decision {
	r := d.report(to, v)
	r.datagram, r.Fragments = datagram, datagram.Len()
	return r
}

// report adds a report on what was decoded last. The caller may complete it before it adds the
// next.
func (d *direction) report(to Reporter, v filter.Verdict) *Decision {
	r := d.batch.reports.add(to)
	r.From, r.Verdict, r.Policy = d.ingress.side, v, d.judgedBy(v)
	r.decoded, r.parsed = true, d.parsed
	return r
}
