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

// direction is one lane of one of the wire's two ways. Its stages, for each
// batch:
//
//  1. read: the lane lends the frames that are there;
//  2. decode: a frame that can't be judged goes no further;
//  3. fragments: what becomes of one depends on the mode, see [fragmentMode];
//  4. judge: the policy decides on the whole, or on a first fragment;
//  5. write: all that was accepted goes out at once;
//  6. report: the observer is told of the decisions that it asked for.
//
// The frames are lent up to the next read. A direction belongs to the goroutine
// in [direction.run].
type direction struct {
	ingress   *ingress
	lane      tun.Lane
	fragments fragmentMode
	shedding  *stack.Shedding // nil where no fragment waits
	counters  Counters        // of the frames that never waited
	clock     filter.Clock    // elapsed, made a value once

	// verdicts counts how often the policy has begun and ended to judge a batch: it
	// is odd meanwhile.
	verdicts atomic.Uint32

	untimed int  // batches since the last one whose latency was measured
	behind  bool // many frames waited for the lane when it read the batch
	late    bool // and when it read the one before

	parsed packet.Parsed // the frame, or the datagram, that is decided on
	view   packet.View   // of parsed
	batch  batch
	ledger ledger // of what the table drops while it takes in a fragment
	reply  []byte // the buffer of what is sent back
}

// newDirection returns one with the table where its fragments wait, which may be nil.
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

// run forwards until the lane fails, as it does when it is closed.
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

// awaitVerdicts returns when the lane judges nothing any more by a policy that was
// replaced before.
func (d *direction) awaitVerdicts() {
	for n := d.verdicts.Load(); n%2 == 1 && d.verdicts.Load() == n; {
		time.Sleep(10 * time.Microsecond)
	}
}

// forward decides on a batch, and writes what was accepted.
func (d *direction) forward(frames []tun.Frame) {
	d.batch.observer = d.ingress.watch.get()
	d.checkLoad()
	for i := range frames {
		d.take(&frames[i])
	}
	d.flush()
}

// checkLoad finds out whether frames come faster than they are dealt with: while
// one batch was, so many came that the next one is as large as the last.
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
		// What waits is kept without its Offload: a checksum that was left for
		// the NIC becomes the one that the NIC would send.
		f.CompleteChecksum()
		d.fragments.take(d, f)
	default:
		d.judgeFrame(f)
	}
}

// Sizes in bytes of what stands in front of a packet (IEEE 802.3, 802.1Q).
const (
	ethernetHeader = 14
	vlanTag        = 4
)

// trim cuts off what follows the packet where an egress side of that MTU takes no
// frame of that length: the packet passes, its trailer does not. Linux takes frames of its
// MTU with an Ethernet header and one VLAN tag (is_skb_forwardable in
// net/core/dev.c), beside the outermost tag, which it keeps out of the frame.
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

// drop drops a frame by itself before the policy has seen it.
func (d *direction) drop(f *tun.Frame, why verdict.Reason) {
	d.counters.drop(why)
	if d.batch.observer != nil {
		d.observeFrame(f, filter.Verdict{Reason: why}, false)
	}
}

// dropLong drops a frame whose packet has more than the limit of bytes that the
// egress side takes.
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

// viewFrame shows the policy what was decoded of a frame.
func (d *direction) viewFrame(f *tun.Frame) {
	p := &d.parsed
	d.view.Body, d.view.BodyLength = f.Data[p.Upper:p.End], p.End-p.Upper
}

// settle has a frame leave by itself, or drops it, as the verdict says; judged
// is set where the policy gave the verdict on this frame.
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
