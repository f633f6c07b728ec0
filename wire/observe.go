package wire

import (
	"sync/atomic"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// Observer is asked about every decision. Each frame that comes in is part of
// one, except those that still wait. Goroutines of the wire call it at the same
// time, one of them with a part of the table locked, so it must neither block
// nor call the wire.
type Observer interface {
	// Wants returns who is to be told of a decision with this verdict on what was
	// decoded, which is nil for what waited in vain; nil where nobody is. The table
	// gave the verdict and resolves its rules; it is nil where no policy did. Wants
	// is called before the frames leave, and so has to be cheap.
	Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter
}

// watch has the observer, which may change while frames flow; nil where nobody
// observes.
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

// Reporter is told of a decision, by the goroutine that made it, in the order in
// which that made them, and with nothing locked.
type Reporter interface {
	// Decided lends a decision, and all that it points to, for the call. The
	// frames that were accepted have been written.
	Decided(*Decision)
}

// Decision says what became of a frame, or of the fragments of a datagram that
// waited for one another. What the egress device then refuses is not decided
// here: it shows in the [Counters] alone.
type Decision struct {
	From    verdict.Side // the side that the frames came in by
	Verdict filter.Verdict
	// Policy is the table that gave the verdict; nil where no policy did.
	Policy *filter.Table
	// Judged is set where the policy gave the verdict on these frames. Otherwise
	// they were dropped before it could, or follow that on a first fragment.
	Judged bool
	// Fragments is how many fragments were decided on; 0 is one whole packet,
	// or a frame that could not be decoded so far.
	Fragments int
	// Length and Limit, in bytes, are those of a packet that is longer than the
	// egress side takes; 0 otherwise.
	Length, Limit int

	frame    []byte          // that was decided on by itself
	datagram *stack.Datagram // whose fragments were
	decoded  bool            // parsed is set
	parsed   packet.Parsed   // what was judged, or read
}

// Frames returns how many frames were decided on.
func (d *Decision) Frames() int { return max(d.Fragments, 1) }

// Frame returns the i-th frame as it came, in the order of the fragments'
// offsets.
func (d *Decision) Frame(i int) []byte {
	if d.datagram != nil {
		return d.datagram.Frame(i)
	}
	return d.frame
}

// Bytes returns the length of all frames together.
func (d *Decision) Bytes() int {
	n := 0
	for i := range d.Frames() {
		n += len(d.Frame(i))
	}
	return n
}

// Fragment returns what the first of the frames says of its fragmentation; it is
// not Present in a whole packet.
func (d *Decision) Fragment() packet.Fragment {
	if d.datagram == nil {
		return d.Parsed().Fragment
	}
	var first packet.Parsed
	first.Decode(d.Frame(0))
	return first.Fragment
}

// Rule returns the rule that decided; nil where none did.
func (d *Decision) Rule() *filter.Rule { return d.rule(d.Verdict.Rule) }

// OverLimit returns the first rule that matched but for its limit; nil where
// there was none.
func (d *Decision) OverLimit() *filter.Rule { return d.rule(d.Verdict.OverLimit) }

func (d *Decision) rule(n verdict.Rule) *filter.Rule {
	if d.Policy == nil {
		return nil
	}
	return d.Policy.Rule(n)
}

// Missing returns what had not come of a datagram that waited in vain; nil for
// everything else.
func (d *Decision) Missing() []stack.Gap {
	if d.datagram == nil || d.Judged || d.Verdict.Action == verdict.Accept {
		return nil
	}
	return d.datagram.Missing()
}

// Parsed returns what was judged: a whole packet, or the datagram put
// together. Of frames dropped before it returns what could be read of the
// first; where that is not a datagram's first fragment, the fields of the
// transport header are not among it.
func (d *Decision) Parsed() *packet.Parsed {
	if !d.decoded {
		d.decoded = true
		d.parsed.Decode(d.Frame(0))
	}
	return &d.parsed
}
