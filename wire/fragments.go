package wire

import (
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// mend deals with a fragment as the mode has it. What waits is kept without
// its Offload, so that a checksum which was left for the NIC becomes the one
// that the NIC would send.
func (d *direction) mend(f *tun.Frame) {
	f.CompleteChecksum()
	first := d.parsed.Fragment.Offset == 0
	switch {
	case d.table != nil && d.late && d.sheds():
		d.drop(f, verdict.FragmentShed)
	case d.mode == packet.ModeReassemble:
		d.reassemble(f)
	case d.mode == packet.ModeValidate:
		d.validate(f)
	case d.mode == packet.ModeFirstAcceptRest && !first:
		d.settle(f, filter.Verdict{Action: verdict.Accept}, false)
	case d.mode == packet.ModeFirstAcceptRest, d.mode == packet.ModeFirstDropRest && first:
		d.settle(f, d.verdict(f.Data[d.parsed.Upper:d.parsed.End], d.parsed.End-d.parsed.Upper), true)
	default:
		d.drop(f, verdict.FragmentMode)
	}
}

// strangers is how many fragments of sources without credit are taken in of a
// batch while the box is behind: enough for a datagram of the largest size in
// fragments of 1,480 bytes, so that a new sender can earn some, and less than
// any batch of a lane that is behind.
const strangers = 48

// sheds decides on a fragment while the box is behind: one that its source has
// credit for is taken in as always, of the others so many as cost little. To
// look at a fragment like this takes a tenth of what it takes to take it in.
func (d *direction) sheds() bool {
	if d.table.Spend(&d.parsed, d.from) {
		return false
	}
	d.strangers++
	return d.strangers > strangers
}

// settle lets a fragment pass by itself, or drops it, as the verdict has it.
func (d *direction) settle(f *tun.Frame, v filter.Verdict, judged bool) {
	if d.heard(v) {
		d.tell(Decision{Verdict: v, Judged: judged, Fragments: 1, frame: f.Data})
	}
	if v.Action != verdict.Accept {
		d.refuseFrame(v, f)
		return
	}
	d.accept(f)
}

// reassemble takes in a fragment, and judges its datagram if that is whole.
func (d *direction) reassemble(f *tun.Frame) {
	datagram, why := d.reassembler.Add(f.Data, &d.parsed, d.from, d.arrival())
	switch {
	case why != verdict.Passed:
		d.drop(f, why)
	case datagram != nil:
		d.counters.reassembled.Add(1)
		d.judge(datagram)
	}
}

// judge decides on a whole datagram by what its first fragment and the
// reassembled payload say.
func (d *direction) judge(datagram *stack.Datagram) {
	why := d.parsed.Decode(datagram.Frame(0))
	judged := why == verdict.Passed
	v := filter.Verdict{Reason: why}
	if judged {
		payload, chain := datagram.Payload(), d.parsed.Upper-d.parsed.Fragment.Payload
		d.parsed.Complete(payload)
		d.datagram.Verified = false
		v = d.verdict(payload[chain:], datagram.PayloadLength()-chain)
		d.refuse(v, datagram.Frame(0))
	}
	if v.Action == verdict.Accept {
		if why := d.shape(datagram); why != verdict.Passed {
			v = filter.Verdict{Reason: why}
		}
	}
	if d.heard(v) {
		d.tell(Decision{Verdict: v, Judged: judged, Fragments: datagram.Len(), datagram: datagram})
	}
	if v.Action != verdict.Accept {
		d.waiting.dropWaiting(datagram.Len(), v.Reason)
		datagram.Release()
		return
	}
	d.table.Credit(datagram)
	d.hand(datagram)
}

// hand has a datagram, whose frames are among those to be written, released
// once they are.
func (d *direction) hand(datagram *stack.Datagram) {
	d.datagrams = append(d.datagrams, datagram)
	d.came += datagram.Len()
	for i := range datagram.Len() {
		d.cameBytes += len(datagram.Frame(i))
	}
	d.waited += datagram.Len()
}

// shape puts the frames of a datagram among those to be written, in the shape
// in which it leaves.
func (d *direction) shape(datagram *stack.Datagram) verdict.Reason {
	if d.emit == packet.EmitOriginal {
		for i := range datagram.Len() {
			d.accepted = append(d.accepted, tun.Frame{Data: datagram.Frame(i)})
		}
		return verdict.Passed
	}
	n, why := datagram.Rebuild(d.egressMTU.get())
	for i := range n {
		d.accepted = append(d.accepted, tun.Frame{Data: datagram.Rebuilt(i)})
	}
	return why
}

// validate takes note of a fragment, which goes on at once where the verdict on
// its first is known and lets it pass. A first fragment is judged alone, and
// goes on in front of those that waited for it.
func (d *direction) validate(f *tun.Frame) {
	claim, why := d.validator.Claim(f.Data, &d.parsed, d.from, d.arrival())
	switch {
	case why != verdict.Passed:
		d.drop(f, why)
	case claim.Waits:
	case claim.First():
		v := d.verdict(f.Data[d.parsed.Upper:d.parsed.End], d.parsed.End-d.parsed.Upper)
		waited := d.validator.Settle(claim, v.Reason)
		d.settle(f, v, true)
		if waited != nil {
			d.follow(waited)
		}
	default:
		d.settle(f, filter.Verdict{Action: verdict.Accept}, false)
	}
}

// follow lets fragments pass that waited for the verdict on their first.
func (d *direction) follow(waited *stack.Datagram) {
	if v := (filter.Verdict{Action: verdict.Accept}); d.heard(v) {
		d.tell(Decision{Verdict: v, Fragments: waited.Len(), datagram: waited})
	}
	for i := range waited.Len() {
		d.accepted = append(d.accepted, tun.Frame{Data: waited.Frame(i)})
	}
	d.hand(waited)
}
