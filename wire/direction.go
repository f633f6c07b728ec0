package wire

import (
	"fmt"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/stack"
	"fragwall/tun"
)

// direction is one of the wire's two ways. Its stages, for each batch:
//
//  1. read: the ingress port lends the frames that are there;
//  2. decode: a frame that can't be judged goes no further;
//  3. mend: what becomes of a fragment depends on the mode, see fragments.go;
//  4. judge: the policy decides on the whole, or on a first fragment;
//  5. write: all that was accepted goes to the egress port at once, before the
//     ingress port takes its buffers back.
//
// It belongs to the goroutine in [direction.run].
type direction struct {
	from            packet.Side
	ingress, egress tun.Port
	egressMTU       int // bytes
	mode            packet.Mode
	emit            packet.Emit
	reassembler     stack.Reassembler
	validator       stack.Validator
	verdict         stack.Judge // judgeFirst, made a value once
	policy          *atomic.Pointer[filter.Policy]
	counters        *Counters
	observer        Observer // may be nil
	now             func() time.Time

	parsed    packet.Parsed
	accepted  []tun.Frame       // of this batch, to be written
	datagrams []*stack.Datagram // whose frames are among them
	came      int               // how many frames came in for what was accepted
	waited    int               // how many of those had waited
	first     *filter.Verdict   // of judgeFirst; nil where it was not asked

	firstVerdict filter.Verdict
	decision     Decision // that the observer is told of
}

// run forwards until the ingress port fails, which it does for a port that was
// closed.
func (d *direction) run() error {
	for {
		frames, err := d.ingress.Read()
		if err != nil {
			return fmt.Errorf("%s: %w", d.from, err)
		}
		for i := range frames {
			d.take(frames[i])
		}
		d.flush()
	}
}

// take decides on one frame.
func (d *direction) take(f tun.Frame) {
	p := &d.parsed
	why := p.Decode(f.Data)
	switch {
	case why != packet.Passed:
		d.drop(f, why)
	case len(f.Data)-p.Network > d.egressMTU:
		d.drop(f, packet.ExceedsMTU)
	case p.Fragment.Present:
		d.mend(f)
	default:
		v := d.policy.Load().Judge(p, d.from)
		if d.observer != nil {
			d.tell(Decision{Verdict: v, Judged: true, frame: f.Data})
		}
		if v.Action != filter.Accept {
			d.counters.drop(v.Reason)
			return
		}
		d.accept(f)
	}
}

// drop drops a frame by itself before the policy has seen it.
func (d *direction) drop(f tun.Frame, why packet.Reason) {
	d.counters.drop(why)
	if d.observer == nil {
		return
	}
	decision := Decision{Verdict: filter.Verdict{Reason: why}, frame: f.Data}
	if d.parsed.Fragment.Present {
		decision.Fragments = 1
	}
	d.tell(decision)
}

// tell lends the observer a decision on what was decoded last.
func (d *direction) tell(decision Decision) {
	d.decision = decision
	d.decision.From = d.from
	d.decision.decoded = &d.parsed
	d.observer.Decided(&d.decision)
}

// accept puts a frame among those to be written.
func (d *direction) accept(f tun.Frame) {
	d.accepted = append(d.accepted, f)
	d.came++
}

// flush writes what was accepted and releases what it stood in. That the
// egress device refuses a frame, as it does while its link is down, is
// counted and ends nothing.
func (d *direction) flush() {
	if len(d.accepted) == 0 {
		return
	}
	refused, _ := d.egress.Write(d.accepted)
	// What was rebuilt leaves in other frames than it came in.
	d.counters.written(d.came, d.waited, min(refused, d.came))
	for i, datagram := range d.datagrams {
		datagram.Release()
		d.datagrams[i] = nil
	}
	clear(d.accepted)
	d.accepted, d.datagrams, d.came, d.waited = d.accepted[:0], d.datagrams[:0], 0, 0
}
