package wire

import (
	"fmt"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/reject"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// direction is one lane of one of the wire's two ways. Its stages, for each
// batch:
//
//  1. read: the lane lends the frames that are there;
//  2. decode: a frame that can't be judged goes no further;
//  3. mend: what becomes of a fragment depends on the mode, see fragments.go;
//  4. judge: the policy decides on the whole, or on a first fragment;
//  5. write: all that was accepted goes out at once, before the lane takes its
//     buffers back.
//
// It belongs to the goroutine in [direction.run].
type direction struct {
	from        verdict.Side
	lane        tun.Lane
	egressMTU   *mtu
	ingressMTU  *mtu
	replies     *filter.Bucket // limits what is sent back; the side's
	mode        packet.Mode
	emit        packet.Emit
	table       *stack.Table // of reassembler or validator; nil where no fragment waits
	reassembler stack.Reassembler
	validator   stack.Validator
	policy      *atomic.Pointer[filter.Table]
	counters    Counters  // of the frames that never waited
	waiting     *Counters // of those that did; the side's
	observer    Observer  // may be nil
	latency     *Latency
	now         func() time.Time
	started     time.Time
	clock       filter.Clock // elapsed, made a value once

	behind    bool // many frames waited for the lane when it read the batch
	late      bool // and when it read the one before
	strangers int  // fragments of this batch whose sources have no credit

	parsed    packet.Parsed
	datagram  packet.View       // of parsed
	timed     bool              // the time of this batch was asked for
	time      time.Time         // of this batch
	batches   int               // since the last one that was timed
	bytes     int               // of the frames that came in with this batch
	accepted  []tun.Frame       // of this batch, to be written
	datagrams []*stack.Datagram // whose frames are among them
	came      int               // how many frames came in for what was accepted
	cameBytes int               // and their bytes
	waited    int               // how many of those had waited

	reply    []byte   // the buffer of what is sent back
	decision Decision // that the observer is told of
}

// run forwards until the lane fails, as it does when it is closed.
func (d *direction) run() error {
	for {
		frames, err := d.lane.Read()
		if err != nil {
			return fmt.Errorf("%s: %w", d.from, err)
		}
		if d.batches++; d.batches < latencyEvery {
			d.forward(frames)
			continue
		}
		d.batches = 0
		begun := d.now()
		d.forward(frames)
		d.latency.observe(d.now().Sub(begun))
	}
}

// forward decides on a batch, and writes what was accepted.
func (d *direction) forward(frames []tun.Frame) {
	d.keepUp()
	for i := range frames {
		d.take(&frames[i])
	}
	d.flush()
}

// keepUp looks whether frames come faster than they are dealt with: while one
// batch was, so many came that the next one is as large as the last.
func (d *direction) keepUp() {
	behind := d.lane.Behind()
	d.late = behind && d.behind
	d.behind, d.strangers = behind, 0
}

// take decides on one frame.
func (d *direction) take(f *tun.Frame) {
	d.bytes += len(f.Data)
	d.datagram.Verified = f.Offload.Flags&(tun.NeedsChecksum|tun.DataValid) != 0
	p := &d.parsed
	why := p.Decode(f.Data)
	length := p.Length(f.Data)
	if why == verdict.Passed && f.Offload != (tun.Offload{}) {
		length, why = checkOffload(f, p)
	}
	sound := why == verdict.Passed
	if sound {
		d.trim(f)
	}
	switch {
	case (sound || p.NoLength) && length > p.PacketMTU(d.egressMTU.get()):
		d.dropLong(f, length)
	case !sound:
		d.drop(f, why)
	case p.SourceRoute && d.policy.Load().DropsSourceRoutes():
		d.drop(f, verdict.PolicySourceRoute)
	case p.Fragment.Present:
		d.mend(f)
	default:
		v := d.verdict(f.Data[p.Upper:p.End], p.End-p.Upper)
		if d.heard(v) {
			d.tell(Decision{Verdict: v, Judged: true, frame: f.Data})
		}
		if v.Action != verdict.Accept {
			d.refuseFrame(v, f)
			return
		}
		d.accept(f)
	}
}

// Sizes in bytes of what stands in front of a packet (IEEE 802.3, 802.1Q).
const (
	ethernetHeader = 14
	vlanTag        = 4
)

// trim cuts off what follows the packet where the egress side takes no frame of
// that length: the packet passes, its trailer does not. Linux takes frames of its
// MTU with an Ethernet header and one VLAN tag (is_skb_forwardable in
// net/core/dev.c), beside the outermost tag, which it keeps out of the frame.
func (d *direction) trim(f *tun.Frame) {
	p := &d.parsed
	longest := d.egressMTU.get() + ethernetHeader + vlanTag
	if p.TagCount > 0 {
		longest += vlanTag
	}
	if len(f.Data) > longest && !p.NoLength {
		f.Data = f.Data[:p.FrameEnd(f.Data)]
	}
}

// drop drops a frame by itself before the policy has seen it.
func (d *direction) drop(f *tun.Frame, why verdict.Reason) {
	d.dropAs(f, Decision{Verdict: filter.Verdict{Reason: why}})
}

// dropLong drops a frame whose packet, of a length in bytes, is longer than the
// egress side takes.
func (d *direction) dropLong(f *tun.Frame, length int) {
	d.dropAs(f, Decision{Verdict: filter.Verdict{Reason: verdict.ExceedsMTU}, Length: length, Limit: d.parsed.PacketMTU(d.egressMTU.get())})
}

// dropAs drops a frame by itself, and tells of it as decision says.
func (d *direction) dropAs(f *tun.Frame, decision Decision) {
	d.counters.drop(decision.Verdict.Reason)
	if !d.heard(decision.Verdict) {
		return
	}
	decision.frame = f.Data
	if d.parsed.Fragment.Present {
		decision.Fragments = 1
	}
	d.tell(decision)
}

// heard reports whether the observer wants to hear of a verdict.
func (d *direction) heard(v filter.Verdict) bool {
	return d.observer != nil && d.observer.Wants(v, &d.parsed)
}

// tell lends the observer a decision on what was decoded last.
func (d *direction) tell(decision Decision) {
	d.decision = decision
	d.decision.From = d.from
	d.decision.decoded = &d.parsed
	d.observer.Decided(&d.decision)
}

// accept puts a frame among those to be written.
func (d *direction) accept(f *tun.Frame) {
	d.accepted = append(d.accepted, *f)
	d.came++
	d.cameBytes += len(f.Data)
}

// verdict asks the policy about what was decoded: its upper-layer header with
// what is at hand of the rest, and how long that is in all.
func (d *direction) verdict(upper []byte, length int) filter.Verdict {
	d.datagram.Body, d.datagram.BodyLength = upper, length
	return d.policy.Load().Judge(&d.datagram, d.clock)
}

// refuseFrame drops a frame by itself on the policy's verdict. What its sender
// is told quotes from it, and so from the checksum.
func (d *direction) refuseFrame(v filter.Verdict, f *tun.Frame) {
	if v.Action == verdict.Reject {
		f.CompleteChecksum()
	}
	d.refuse(v, f.Data)
	d.counters.drop(v.Reason)
}

// refuse tells the sender of the datagram that was judged, of which frame is
// the first, where the verdict says so. The reply goes out of the side that the
// datagram came in by, for which there is [tun.Lane.Reply]. A reply that the
// device has no room for is lost, as any may be.
func (d *direction) refuse(v filter.Verdict, frame []byte) {
	if v.Action != verdict.Reject {
		return
	}
	d.reply = reject.Append(d.reply[:0], frame, &d.datagram, d.ingressMTU.get())
	if len(d.reply) == 0 || !d.replies.Take(d.elapsed()) {
		return
	}
	if d.lane.Reply(tun.Frame{Data: d.reply}) == nil {
		d.counters.answered.Add(1)
	}
}

// arrival is when the batch came: all of it at one time, which is asked for
// once at most, and not at all if nothing depends on it.
func (d *direction) arrival() time.Time {
	if !d.timed {
		d.timed, d.time = true, d.now()
	}
	return d.time
}

// elapsed is the policy's clock.
func (d *direction) elapsed() time.Duration { return d.arrival().Sub(d.started) }

// flush writes what was accepted and releases what it stood in. That the
// egress device refuses a frame, as it does while its link is down, is
// counted and ends nothing.
func (d *direction) flush() {
	d.timed = false
	d.counters.receivedBytes.Add(uint64(d.bytes))
	d.bytes = 0
	if len(d.accepted) == 0 {
		return
	}
	bytes := 0
	for i := range d.accepted {
		bytes += len(d.accepted[i].Data)
	}
	refused, _ := d.lane.Write(d.accepted)
	d.counters.forwardedBytes.Add(uint64(d.cameBytes))
	d.counters.sentBytes.Add(uint64(bytes))
	d.counters.sent.Add(uint64(len(d.accepted) - refused))
	counters := &d.counters
	if d.waited > 0 {
		counters = d.waiting
	}
	// What was rebuilt leaves in other frames than it came in.
	counters.written(d.came, d.waited, min(refused, d.came))
	for i, datagram := range d.datagrams {
		datagram.Release()
		d.datagrams[i] = nil
	}
	clear(d.accepted)
	d.accepted, d.datagrams, d.came, d.cameBytes, d.waited = d.accepted[:0], d.datagrams[:0], 0, 0, 0
}
