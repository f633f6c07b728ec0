package wire

import (
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// reassembly holds fragments until their datagram is complete. The policy then in force judges
// it.
type reassembly struct {
	stack.Reassembler
	emit packet.Emit
}

func (r *reassembly) take(d *direction, f *tun.Frame) {
	if d.sheds() {
		d.drop(f, verdict.FragmentShed)
		return
	}
	datagram, why := r.Add(f.Data, &d.parsed, d.ingress.side, d.arrival())
	switch {
	case why != verdict.Passed:
		d.drop(f, why)
	case datagram != nil:
		d.counters.reassembled.Add(1)
		r.settle(d, datagram)
	}
}

// settle judges a complete datagram, by its first fragment and the reassembled payload, and
// forwards or drops it.
func (r *reassembly) settle(d *direction, datagram *stack.Datagram) {
	v, judged := d.judgeDatagram(datagram)
	if v.Action == verdict.Accept {
		if why := r.shape(d, datagram); why != verdict.Passed {
			v = filter.Verdict{Reason: why}
		}
	}
	if to := d.wants(v); to != nil {
		d.reportDatagram(to, v, datagram).Judged = judged
	}
	d.batch.reports.hold(datagram)
	if v.Action == verdict.Accept {
		r.Credit(datagram)
		d.batch.countDatagram(datagram)
		return
	}
	d.ingress.waiting[d.ingress.side].dropWaiting(datagram.Len(), v.Reason)
}

// judgeDatagram returns the verdict on a complete datagram, and whether the policy gave it.
func (d *direction) judgeDatagram(datagram *stack.Datagram) (v filter.Verdict, judged bool) {
	first := datagram.Frame(0)
	if why := d.parsed.Decode(first); why != verdict.Passed {
		return filter.Verdict{Reason: why}, false
	}
	payload, chain := datagram.Payload(), d.parsed.Upper-d.parsed.Fragment.Payload
	d.parsed.Complete(payload)
	d.view.Verified = false
	d.view.Body, d.view.BodyLength = payload[chain:], datagram.PayloadLength()-chain
	v = d.policy().Judge(&d.view, d.clock)
	d.refuse(v, first)
	return v, true
}

// shape adds the frames of a datagram to those to be written, as fragments or rebuilt.
func (r *reassembly) shape(d *direction, datagram *stack.Datagram) verdict.Reason {
	if r.emit == packet.EmitOriginal {
		d.batch.addFragments(datagram)
		return verdict.Passed
	}
	n, why := datagram.Rebuild(d.ingress.egressMTU.get())
	for i := range n {
		d.batch.out = append(d.batch.out, tun.Frame{Data: datagram.Rebuilt(i)})
	}
	return why
}
