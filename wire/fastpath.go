package wire

import (
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// FastPath applies verdicts of the policy before frames reach a lane: it forwards and drops
// frames, which the lanes then do not get. It leaves frames to the lanes if it is not sure. Any
// goroutine may call its methods.
type FastPath interface {
	flow.Offload

	// Start sets the start of the policy's clock. It is called before all other methods, and
	// again if the clock continues that of another process.
	Start(started time.Time)
	// Learn receives the cacheable verdicts of a batch, after the batch was written. The slice
	// is valid only during the call. The lane's goroutine calls Learn, so it must be cheap.
	Learn(lessons []Lesson)
	// Keys returns the keys of the flows that the fast path knows.
	Keys() []flow.Key
	// Expect makes entries for flows that another process's fast path knew. They decide nothing
	// before a lesson, but preserve the order of the flows' frames from now on.
	Expect(keys []flow.Key)
	// SetPolicy sets the policy in force. It returns once no verdict of an older policy is
	// applied.
	SetPolicy(t *filter.Table)
	// Harvest adds the datagrams that rules decided on in the fast path to the rules' counters.
	Harvest()
	// Counts returns the counts of the frames that arrived on a side and that the fast path
	// forwarded or dropped.
	Counts(from verdict.Side) FastCounts
	// Entry returns what the fast path does with datagrams of a flow that arrive on a side. It
	// returns false if it leaves all of them to the lanes. It changes nothing.
	Entry(k *flow.Key, from verdict.Side) (FastEntry, bool)
	// Passed returns the part of a datagram that the fast path has forwarded, given a fragment
	// of the datagram that has reached a lane. The fast path forwards no further fragments of
	// this datagram, and returns false if asked about it again. Passed is called with a part of
	// the table of fragments locked.
	Passed(p *packet.Parsed, from verdict.Side) (Beginning, bool)
	// Yield returns all state of the fast path: the progress of flows, the counters of rules,
	// and, to begun, the beginnings of the datagrams that it has forwarded, with the header
	// fields that identify the datagram. It is called after the fast path was detached.
	Yield(begun func(p *packet.Parsed, from verdict.Side, b Beginning))
	// Block makes the fast path leave all fragments of a datagram to the lanes, because the
	// table of fragments holds a part of it. p has the header fields that identify the
	// datagram.
	Block(p *packet.Parsed, from verdict.Side)
	// Upkeep is called every 100 ms.
	Upkeep(now time.Time)
}

// Beginning is the part of a datagram that a fast path has forwarded.
type Beginning = stack.Beginning

// Lesson is a cacheable verdict on a datagram.
type Lesson struct {
	Key        flow.Key // see [flow.Key.SetFast]
	From       verdict.Side
	Fragmented bool // the datagram arrived in fragments; the verdict is on its first fragment
	Verdict    filter.Verdict
	Table      *filter.Table // that gave the verdict
}

// learn records a cacheable verdict on the datagram that was decoded last, for the fast path.
func (d *direction) learn(v filter.Verdict) {
	l := Lesson{From: d.ingress.side, Fragmented: d.parsed.Fragmented, Verdict: v, Table: d.batch.policy}
	if l.Key.SetFast(&d.view, l.Table.AnyVLANs()) {
		d.batch.lessons = append(d.batch.lessons, l)
	}
}

// FastCounts counts the frames that arrived on one side and that the fast path has forwarded or
// dropped since it was opened.
type FastCounts struct {
	Forwarded, ForwardedBytes uint64
	Dropped                   [verdict.Reasons]uint64 // frames, by verdict.Reason
	DroppedBytes              uint64
}

// FastEntry is what the fast path does with the datagrams of one direction of a flow.
type FastEntry struct {
	Action           verdict.Action
	Reason           verdict.Reason // of a drop
	Rule             verdict.Rule   // the rule that decided; 0 if none did
	Whole, Fragments bool           // the datagrams that the entry applies to
	Frames, Bytes    uint64         // of that direction, forwarded or dropped so far
	Seen             time.Duration  // when the last of them was seen, on the policy's clock
}

// HasFastPath reports whether the wire has a fast path.
func (b *Bump) HasFastPath() bool { return b.fastPath != nil }

// FastEntry returns what the fast path does with a datagram. It returns false if there is no
// entry for it.
func (b *Bump) FastEntry(v *packet.View) (e FastEntry, known bool) {
	var k flow.Key
	if b.fastPath == nil || !k.SetFast(v, b.policy.Load().AnyVLANs()) {
		return e, false
	}
	return b.fastPath.Entry(&k, v.From)
}
