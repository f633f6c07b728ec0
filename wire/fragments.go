package wire

import (
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/stack"
	"fragwall/tun"
)

// mend deals with a fragment as the mode has it.
func (d *direction) mend(f tun.Frame) {
	first := d.parsed.Fragment.Offset == 0
	switch {
	case d.mode == packet.ModeReassemble:
		d.reassemble(f)
	case d.mode == packet.ModeValidate:
		d.validate(f)
	case d.mode == packet.ModeFirstAcceptRest && !first:
		d.accept(f)
	case d.mode == packet.ModeFirstAcceptRest, d.mode == packet.ModeFirstDropRest && first:
		if why := d.judgeFirst(&d.parsed); why != packet.Passed {
			d.counters.drop(why)
			return
		}
		d.accept(f)
	default:
		d.counters.drop(packet.FragmentMode)
	}
}

// reassemble takes in a fragment, and judges its datagram if that is whole.
func (d *direction) reassemble(f tun.Frame) {
	datagram, why := d.reassembler.Add(f.Data, &d.parsed, d.from, d.now())
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
	if why == packet.Passed {
		why = d.shape(datagram)
	}
	if why != packet.Passed {
		d.counters.dropWaiting(datagram.Len(), why)
		datagram.Release()
		return
	}
	d.hand(datagram)
}

// hand has a datagram, whose frames are among those to be written, released
// once they are.
func (d *direction) hand(datagram *stack.Datagram) {
	d.datagrams = append(d.datagrams, datagram)
	d.came += datagram.Len()
	d.waited += datagram.Len()
}

// shape puts the frames of a datagram among those to be written, in the shape
// in which it leaves.
func (d *direction) shape(datagram *stack.Datagram) packet.Reason {
	if d.emit == packet.EmitOriginal {
		for i := range datagram.Len() {
			d.accepted = append(d.accepted, tun.Frame{Data: datagram.Frame(i)})
		}
		return packet.Passed
	}
	n, why := datagram.Rebuild(d.egressMTU)
	for i := range n {
		d.accepted = append(d.accepted, tun.Frame{Data: datagram.Rebuilt(i)})
	}
	return why
}

// validate takes note of a fragment, which goes on at once where the verdict on
// its first is known and lets it pass.
func (d *direction) validate(f tun.Frame) {
	passage, why := d.validator.Add(f.Data, &d.parsed, d.from, d.now(), d.verdict)
	switch {
	case why != packet.Passed:
		d.counters.drop(why)
	case !passage.Waits:
		d.accept(f)
	}
	if waited := passage.Released; waited != nil {
		for i := range waited.Len() {
			d.accepted = append(d.accepted, tun.Frame{Data: waited.Frame(i)})
		}
		d.hand(waited)
	}
}

// judgeFirst decides on a first fragment alone.
func (d *direction) judgeFirst(first *packet.Parsed) packet.Reason {
	if v := d.policy.Load().Judge(first, d.from); v.Action != filter.Accept {
		return v.Reason
	}
	return packet.Passed
}
