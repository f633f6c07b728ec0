package wire

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
)

// direction is one lane in one direction of the wire. For each batch, it has these stages:
//
//  1. read: the lane returns the frames that are there;
//  2. decode: a frame that cannot be judged is dropped;
//  3. fragments: the mode decides how they are handled, see [fragmentMode];
//  4. judge: the policy judges the datagram, or its first fragment;
//  5. write: everything that was accepted is written at once;
//  6. report: the observer is told of the decisions that it asked for.
//
// The frames are valid until the next read. A direction belongs to the goroutine in
// [direction.run].
type direction struct {
	ingress   *ingress
	lane      tun.Lane
	fragments fragmentMode
	shedding  *stack.Shedding // nil if the mode holds no fragments
	counters  Counters        // of the frames that were not held
	clock     filter.Clock    // elapsed as a value, made once

	// verdicts counts how often the policy has begun and finished judging a batch: it is odd in
	// between.
	verdicts atomic.Uint32

	untimed int  // batches since the last one that was timed
	behind  bool // many frames were queued when the lane read the batch
	late    bool // this was also the case for the batch before

	parsed packet.Parsed // the frame or datagram that is being decided
	view   packet.View   // of parsed
	batch  batch
	ledger ledger // of what the table drops while it takes in a fragment
	reply  []byte // the buffer for replies
}

// newDirection returns a direction that holds its fragments in table, which may be nil.
func newDirection(in *ingress, lane tun.Lane, mode func(stack.Ledger) fragmentMode, table *stack.Table) *direction {
	d := &direction{ingress: in, lane: lane}
	if table != nil {
		d.shedding = table.NewShedding()
	}
	d.clock = d.elapsed
	d.ledger = ledger{in.waiting, &d.batch.observer, &d.batch.reports, lane}
	d.fragments = mode(&d.ledger)
	d.view = packet.View{Parsed: &d.parsed, From: in.side}
	return d
}

// run forwards until the lane fails, which it does when it is closed.
func (d *direction) run() error {
	for {
		frames, err := d.lane.Read()
		if errors.Is(err, tun.ErrHeld) {
			d.ingress.rest.wait()
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.ingress.side, err)
		}
		if d.untimed++; d.untimed < latencyEvery {
			d.forward(frames)
			continue
		}
		d.untimed = 0
		begun := d.ingress.now()
		d.forward(frames)
		d.ingress.latency.observe(d.ingress.now().Sub(begun))
	}
}

// awaitVerdicts returns once the lane no longer judges by a policy that was replaced before the
// call.
func (d *direction) awaitVerdicts() {
	for n := d.verdicts.Load(); n%2 == 1 && d.verdicts.Load() == n; {
		time.Sleep(10 * time.Microsecond)
	}
}

// forward decides on a batch, and writes the frames that were accepted.
func (d *direction) forward(frames []tun.Frame) {
	d.batch.observer = d.ingress.watch.get()
	d.checkLoad()
	for i := range frames {
		d.take(&frames[i])
	}
	d.flush()
}

// checkLoad determines whether frames arrive faster than they are processed: so many arrived
// during one batch that the next one is as large as the last.
func (d *direction) checkLoad() {
	behind := d.lane.Behind()
	d.late = behind && d.behind
	d.behind = behind
	if d.shedding != nil {
		d.shedding.Turn()
	}
}

// take decides on one frame.
func (d *direction) take(f *tun.Frame) {
	d.batch.bytes += len(f.Data)
	d.view.Verified = f.Offload.Flags&(tun.NeedsChecksum|tun.DataValid) != 0
	p, mtu := &d.parsed, d.ingress.egressMTU.get()
	why := p.Decode(f.Data)
	length := p.Length(f.Data)
	if why == verdict.Passed && f.Offload != (tun.Offload{}) {
		length, why = checkOffload(f, p)
	}
	sound := why == verdict.Passed
	if sound {
		d.trim(f, mtu)
	}
	switch {
	case (sound || p.NoLength) && length > p.PacketMTU(mtu):
		d.dropLong(f, length, p.PacketMTU(mtu))
	case !sound:
		d.drop(f, why)
	case p.SourceRoute && d.policy().DropsSourceRoutes():
		d.drop(f, verdict.PolicySourceRoute)
	case p.Fragment.Present:
		// The table holds the frame without its Offload, so a checksum that was left to the NIC
		// is completed here.
		f.CompleteChecksum()
		d.fragments.take(d, f)
	default:
		d.judgeFrame(f)
	}
}

// Sizes in bytes of headers before a packet (IEEE 802.3, 802.1Q).
const (
	ethernetHeader = 14
	vlanTag        = 4
)

// trim cuts off the trailer after the packet if an egress side with the given MTU does not
// accept a frame of that length. The packet passes without its trailer. Linux accepts frames of
// its MTU plus an Ethernet header and one VLAN tag (is_skb_forwardable in net/core/dev.c), plus
// the outermost tag, which it stores outside the frame.
func (d *direction) trim(f *tun.Frame, mtu int) {
	p := &d.parsed
	longest := mtu + ethernetHeader + vlanTag
	if p.TagCount > 0 {
		longest += vlanTag
	}
	if len(f.Data) > longest && !p.NoLength {
		f.Data = f.Data[:p.FrameEnd(f.Data)]
	}
}

// drop drops a single frame before the policy has seen it.
func (d *direction) drop(f *tun.Frame, why verdict.Reason) {
	d.counters.drop(why)
	if d.batch.observer != nil {
		d.observeFrame(f, filter.Verdict{Reason: why}, false)
	}
}

// dropLong drops a frame whose packet is longer than the limit, in bytes, of the egress side.
func (d *direction) dropLong(f *tun.Frame, length, limit int) {
	d.counters.drop(verdict.ExceedsMTU)
	v := filter.Verdict{Reason: verdict.ExceedsMTU}
	if to := d.wants(v); to != nil {
		r := d.reportFrame(to, v, f)
		r.Length, r.Limit = length, limit
	}
}

// judgeFrame judges a whole packet, or a first fragment alone, and settles it.
func (d *direction) judgeFrame(f *tun.Frame) {
	d.viewFrame(f)
	v := d.policy().Judge(&d.view, d.clock)
	if d.ingress.fastPath != nil && v.Has(filter.Cacheable) && !d.parsed.Fragment.Present {
		d.learn(v)
	}
	d.settle(f, v, true)
}

// viewFrame sets the view to what was decoded from a frame.
func (d *direction) viewFrame(f *tun.Frame) {
	p := &d.parsed
	d.view.Body, d.view.BodyLength = f.Data[p.Upper:p.End], p.End-p.Upper
}

// settle forwards or drops a single frame, as the verdict says. judged is set if the policy
// gave the verdict on this frame.
func (d *direction) settle(f *tun.Frame, v filter.Verdict, judged bool) {
	if d.batch.observer != nil {
		d.observeFrame(f, v, judged)
	}
	if v.Action == verdict.Accept {
		d.batch.accept(f)
		return
	}
	d.refuseFrame(v, f)
	d.counters.drop(v.Reason)
}
