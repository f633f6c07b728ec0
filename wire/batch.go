package wire

import (
	"time"

	"fragwall/filter"
	"fragwall/stack"
	"fragwall/tun"
)

// batch is what a direction keeps from one Read of its lane to the next.
type batch struct {
	bytes  int           // of the frames that came in
	timed  bool          // time is set
	time   time.Time     // when the batch came
	policy *filter.Table // that judges it; nil where it was not asked so far

	out     []tun.Frame // to be written
	frames  int         // that came in for what is to be written
	inBytes int         // of those frames
	waited  int         // how many of those frames had waited

	observer Observer // of the batch; nil where nobody observes
	reports  reports  // to be made once all is written
	lessons  []Lesson // for the fast path, likewise
}

// accept adds a frame that leaves as it came.
func (b *batch) accept(f *tun.Frame) {
	b.out = append(b.out, *f)
	b.frames++
	b.inBytes += len(f.Data)
}

// countDatagram counts the fragments of a datagram whose frames are to be
// written.
func (b *batch) countDatagram(datagram *stack.Datagram) {
	n := datagram.Len()
	b.frames += n
	b.waited += n
	for i := range n {
		b.inBytes += len(datagram.Frame(i))
	}
}

// addFragments adds the fragments of a datagram as they came.
func (b *batch) addFragments(datagram *stack.Datagram) {
	for i := range datagram.Len() {
		b.out = append(b.out, tun.Frame{Data: datagram.Frame(i)})
	}
}

// arrival is when the batch came: all of it at one time, for which the clock is
// read once at most, and not at all if nothing depends on it.
func (d *direction) arrival() time.Time {
	if !d.batch.timed {
		d.batch.timed, d.batch.time = true, d.ingress.now()
	}
	return d.batch.time
}

// policy is the one that judges the batch: the one in force when the first of its
// frames was judged.
func (d *direction) policy() *filter.Table {
	if d.batch.policy == nil {
		d.verdicts.Add(1)
		d.batch.policy = d.ingress.policy.Load()
	}
	return d.batch.policy
}

// elapsed is the policy's clock.
func (d *direction) elapsed() time.Duration { return d.arrival().Sub(d.ingress.started) }

// flush ends a batch: it writes what was accepted, then reports what an observer
// asked for, while the lane still lends the frames, and then tells the fast path what
// it can carry out from now on.
func (d *direction) flush() {
	b := &d.batch
	if b.policy != nil {
		d.verdicts.Add(1)
	}
	d.counters.receivedBytes.Add(uint64(b.bytes))
	if len(b.out) > 0 {
		d.write()
	}
	b.reports.deliver()
	if len(b.lessons) > 0 {
		d.ingress.fastPath.Learn(b.lessons)
		clear(b.lessons)
		b.lessons = b.lessons[:0]
	}
	b.bytes, b.timed, b.policy = 0, false, nil
}

// write writes what was accepted. A frame that the egress device refuses, as it
// does while its link is down, is counted and ends nothing.
func (d *direction) write() {
	b := &d.batch
	bytes := 0
	for i := range b.out {
		bytes += len(b.out[i].Data)
	}
	refused, _ := d.lane.Write(b.out)
	d.counters.forwardedBytes.Add(uint64(b.inBytes))
	d.counters.sentBytes.Add(uint64(bytes))
	d.counters.sent.Add(uint64(len(b.out) - refused))
	counters := &d.counters
	if b.waited > 0 {
		counters = &d.ingress.waiting[d.ingress.side]
	}
	// What was rebuilt leaves in other frames than it came in.
	counters.written(b.frames, b.waited, min(refused, b.frames))
	clear(b.out)
	b.out, b.frames, b.inBytes, b.waited = b.out[:0], 0, 0, 0
}
