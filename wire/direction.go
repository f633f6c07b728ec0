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
//  3. mend: a fragment goes into the table, which hands out its datagram once
//     that is whole;
//  4. judge: the policy decides on the whole;
//  5. write: all that was accepted goes to the egress port at once, before the
//     ingress port takes its buffers back.
//
// It belongs to the goroutine in [direction.run].
type direction struct {
	from            packet.Side
	ingress, egress tun.Port
	egressMTU       int // bytes
	table           *stack.Table
	policy          *atomic.Pointer[filter.Policy]
	counters        *Counters
	now             func() time.Time

	parsed    packet.Parsed
	accepted  []tun.Frame       // of this batch
	datagrams []*stack.Datagram // whose frames are among them
	waited    int               // how many of them are fragments
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
		d.counters.drop(why)
	case len(f.Data)-p.Network > d.egressMTU:
		d.counters.drop(packet.ExceedsMTU)
	case p.Fragment.Present:
		d.mend(f)
	default:
		v := d.policy.Load().Judge(p, d.from)
		if v.Action != filter.Accept {
			d.counters.drop(v.Reason)
			return
		}
		d.accepted = append(d.accepted, f)
	}
}

// mend takes in a fragment, and judges its datagram if that is whole.
func (d *direction) mend(f tun.Frame) {
	if d.table == nil {
		d.counters.drop(packet.FragmentMode)
		return
	}
	datagram, why := d.table.Add(f.Data, &d.parsed, d.from, d.now())
	switch {
	case why != packet.Passed:
		d.counters.drop(why)
	case datagram != nil:
		d.counters.reassembled.Add(1)
		d.judge(datagram)
	}
}

// judge decides on a whole datagram by what its first fragment and the
// reassembled payload say.
func (d *direction) judge(datagram *stack.Datagram) {
	why := d.parsed.Decode(datagram.Frame(0))
	if why == packet.Passed {
		d.parsed.Complete(datagram.Payload())
		why = d.policy.Load().Judge(&d.parsed, d.from).Reason
	}
	if why != packet.Passed {
		d.counters.dropWaiting(datagram.Len(), why)
		datagram.Release()
		return
	}
	for i := range datagram.Len() {
		d.accepted = append(d.accepted, tun.Frame{Data: datagram.Frame(i)})
	}
	d.datagrams = append(d.datagrams, datagram)
	d.waited += datagram.Len()
}

// flush writes what was accepted and releases what it stood in. That the
// egress device refuses a frame, as it does while its link is down, is
// counted and ends nothing.
func (d *direction) flush() {
	if len(d.accepted) == 0 {
		return
	}
	refused, _ := d.egress.Write(d.accepted)
	d.counters.written(len(d.accepted), d.waited, refused)
	for i, datagram := range d.datagrams {
		datagram.Release()
		d.datagrams[i] = nil
	}
	clear(d.accepted)
	d.accepted, d.datagrams, d.waited = d.accepted[:0], d.datagrams[:0], 0
}
