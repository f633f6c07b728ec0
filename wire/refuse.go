package wire

import (
	"fragwall/filter"
	"fragwall/packet/reject"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// refuseFrame sends the reply to a frame that the verdict rejects by itself. The
// reply quotes from the frame, and so from its checksum, which may be left for
// the NIC: the frame stays as it came, for the observer.
func (d *direction) refuseFrame(v filter.Verdict, f *tun.Frame) {
	if v.Action != verdict.Reject {
		return
	}
	o := f.Offload
	if o.Flags&tun.NeedsChecksum == 0 {
		d.refuse(v, f.Data)
		return
	}
	field := f.Data[int(o.ChecksumStart)+int(o.ChecksumOffset):][:2]
	left := [2]byte(field)
	quoted := *f
	quoted.CompleteChecksum()
	d.refuse(v, quoted.Data)
	copy(field, left[:])
}

// refuse sends the reply to the datagram that was judged, of which frame is the
// first, where the verdict rejects it. The reply leaves by the side that the
// datagram came in by, for which there is [tun.Lane.Reply]. A reply that the
// device has no room for is lost, as any may be.
func (d *direction) refuse(v filter.Verdict, frame []byte) {
	if v.Action != verdict.Reject {
		return
	}
	d.reply = reject.Append(d.reply[:0], frame, &d.view, d.ingress.mtu.get())
	if len(d.reply) == 0 || !d.ingress.replies.Take(d.elapsed()) {
		return
	}
	if d.lane.Reply(tun.Frame{Data: d.reply}) == nil {
		d.counters.answered.Add(1)
	}
}
