package wire

import (
	"time"

	"fragwall/filter"
	"fragwall/stack"
	"fragwall/tun"
)

// batch is the state that a direction keeps from one Read of its lane to the next.
type batch struct {
	bytes  int           // of the frames that arrived
	timed  bool          // time is set
	time   time.Time     // when the batch arrived
	policy *filter.Table // the policy that judges the batch; nil until one is needed

	out     []tun.Frame // to be written
	frames  int         // frames that arrived for those to be written
	inBytes int         // of those frames
	waited  int         // how many of those frames were held

	observer Observer // of the batch; nil if there is none
	reports  reports  // to be made after writing
	lessons  []Lesson // for the fast path, also after writing
}

// accept adds a frame that leaves as it arrived.
func (b *batch) accept(f *tun.Frame) {
	b.out = append(b.out, *f)
	b.frames++
	b.inBytes += len(f.Data)
}

// countDatagram counts the fragments of a datagram whose frames are to be written.
func (b *batch) countDatagram(datagram *stack.Datagram) {
	n := datagram.Len()
	b.frames += n
	b.waited += n
	for i := range n {
		b.inBytes += len(datagram.Frame(i))
	}
}

// addFragments adds the fragments of a datagram as they arrived.
func (b *batch) addFragments(datagram *stack.Datagram) {
	for i := range datagram.Len() {
		b.out = append(b.out, tun.Frame{Data: datagram.Frame(i)})
	}
}

// arrival returns when the batch arrived. All of it has the same time, so the clock is read at
// most once, and only if something depends on it.
func (d *direction) arrival() time.Time {
	if !d.batch.timed {
		d.batch.timed, d.batch.time = true, d.ingress.now()
	}
	return d.batch.time
}

// policy returns the policy that judges the batch: the one in force when its first frame was
// judged.
func (d *direction) policy() *filter.Table {
	if d.batch.policy == nil {
		d.verdicts.Add(1)
		d.batch.policy = d.ingress.policy.Load()
	}
	return d.batch.policy
}

// elapsed returns the time on the policy's clock.
func (d *direction) elapsed() time.Duration { return d.arrival().Sub(d.ingress.started) }

// flush ends a batch. It writes what was accepted. Then it makes the reports that an observer
// asked for, while the frames are still valid. Then it tells the fast path which verdicts it
// can apply from now on.
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

// write writes what was accepted. A frame that the egress device refuses, for example while its
// link is down, is counted, and forwarding continues.
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
	// Rebuilt datagrams leave in other frames than they arrived in.
	counters.written(b.frames, b.waited, min(refused, b.frames))
	clear(b.out)
	b.out, b.frames, b.inBytes, b.waited = b.out[:0], 0, 0, 0
}
