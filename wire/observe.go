package wire

import (
	"sync/atomic"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// Observer is asked about every decision. Each frame that arrives is part of one, except for
// held ones. Several goroutines of the wire call it concurrently, one of them with a part of
// the table locked, so it must neither block nor call the wire.
type Observer interface {
	// Wants returns the Reporter for a decision with this verdict on a decoded packet, or nil
	// if there is none. The packet is nil for dropped fragments that were held. The table gave the
	// verdict and resolves its rules; it is nil if no policy did. Wants is called before the
	// frames leave, so it must be fast.
	Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter
}

// watch holds the observer, which may change while frames flow; nil if there is none.
type watch struct{ observer atomic.Pointer[Observer] }

func (w *watch) get() Observer {
	if o := w.observer.Load(); o != nil {
		return *o
	}
	return nil
}

func (w *watch) set(o Observer) {
	if o == nil {
		w.observer.Store(nil)
		return
	}
	w.observer.Store(&o)
}

// Reporter is told of decisions, by the goroutine that made them, in the order in which it made
// them, and without any lock held.
type Reporter interface {
	// Decided reports a decision, after the accepted frames were written. The decision and
	// everything that it points to is only valid during the call.
	Decided(*Decision)
}

// Decision is the result for a frame, or for the held fragments of a datagram. It does not
// include whether the egress device then refuses a frame: only the [Counters] show that.
type Decision struct {
	From    verdict.Side // the side that the frames arrived on
	Verdict filter.Verdict
	// Policy is the table that gave the verdict; nil if no policy did.
	Policy *filter.Table
	// Judged is set if the policy gave the verdict on these frames. Otherwise they were dropped
	// before it could, or follow the verdict on a first fragment.
	Judged bool
	// Fragments is the number of fragments in the decision; 0 means one whole packet, or a
	// frame that could not be decoded up to that point.
	Fragments int
	// Length and Limit, in bytes, are set for a packet that is longer than the egress side
	// accepts; 0 otherwise.
	Length, Limit int

	frame    []byte          // of a decision on a single frame
	datagram *stack.Datagram // of a decision on its fragments
	decoded  bool            // parsed is set
	parsed   packet.Parsed   // the packet that was judged or decoded
}

// Frames returns the number of frames in the decision.
func (d *Decision) Frames() int { return max(d.Fragments, 1) }

// Frame returns the i-th frame as it arrived, in the order of the fragments' offsets.
func (d *Decision) Frame(i int) []byte {
	if d.datagram != nil {
		return d.datagram.Frame(i)
	}
	return d.frame
}

// Bytes returns the total length of all frames.
func (d *Decision) Bytes() int {
	n := 0
	for i := range d.Frames() {
		n += len(d.Frame(i))
	}
	return n
}

// Fragment returns the fragmentation fields of the first frame. They are not Present in a whole
// packet.
func (d *Decision) Fragment() packet.Fragment {
	if d.datagram == nil {
		return d.Parsed().Fragment
	}
	var first packet.Parsed
	first.Decode(d.Frame(0))
	return first.Fragment
}

// Rule returns the rule that decided; nil if none did.
func (d *Decision) Rule() *filter.Rule { return d.rule(d.Verdict.Rule) }

// OverLimit returns the first rule that matched except for its limit; nil if there was none.
func (d *Decision) OverLimit() *filter.Rule { return d.rule(d.Verdict.OverLimit) }

func (d *Decision) rule(n verdict.Rule) *filter.Rule {
	if d.Policy == nil {
		return nil
	}
	return d.Policy.Rule(n)
}

// Missing returns the ranges that a datagram lacked when its held fragments were dropped; nil for
// everything else.
func (d *Decision) Missing() []stack.Gap {
	if d.datagram == nil || d.Judged || d.Verdict.Action == verdict.Accept {
		return nil
	}
	return d.datagram.Missing()
}

// Parsed returns what was judged: a whole packet, or the reassembled datagram. For frames that
// were dropped before that, it returns what could be decoded of the first one. If that is not
// the first fragment of a datagram, the fields of the transport header are not set.
func (d *Decision) Parsed() *packet.Parsed {
	if !d.decoded {
		d.decoded = true
		d.parsed.Decode(d.Frame(0))
	}
	return &d.parsed
}
