package wire

import (
	"fragwall/filter"
	"fragwall/packet/reject"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// refuseFrame sends the reply to a single frame that the verdict rejects. The reply quotes the
// frame, including its checksum, which may have been left to the NIC. The frame itself stays as
// it arrived, for the observer.
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

// refuse sends the reply to the datagram that was judged, if the verdict rejects it. frame is
// its first frame. The reply leaves through the ingress side of the datagram
// ([tun.Lane.Reply]). If the device has no room for it, it is lost, as any reply may be.
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
