package wire

import (
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// FastPath carries out in front of the lanes what the policy has decided already: it
// forwards and drops frames that the lanes then don't get. Whatever it is not sure
// of it leaves to them. Its methods may be called from any goroutine.
type FastPath interface {
	flow.Offload

	// Start is called before all others, with where the policy's clock begins, and
	// again where that goes on as the clock of another process.
	Start(started time.Time)
	// Learn lends the verdicts of a batch that are cacheable, for the call. The
	// batch was written. It is called by the lane's goroutine, and so has to be
	// cheap.
	Learn(lessons []Lesson)
	// Keys returns the keys of the flows that it knows.
	Keys() []flow.Key
	// Expect makes entries for flows that another process's fast path knew. They decide
	// nothing until they are learnt, and keep the order of the flows from now on.
	Expect(keys []flow.Key)
	// SetPolicy says which policy is in force. It returns when nothing that an
	// older one decided is carried out any more.
	SetPolicy(t *filter.Table)
	// Harvest adds what rules decided on in the fast path to their counters.
	Harvest()
	// Counts returns what became of the frames that came in by a side and that no
	// lane got.
	Counts(from verdict.Side) FastCounts
	// Entry returns what the fast path does with the datagrams of a flow that come in
	// by a side; false where it leaves all of them to the lanes. It changes nothing.
	Entry(k *flow.Key, from verdict.Side) (FastEntry, bool)
	// Passed returns the beginning of the datagram of a fragment that has reached a
	// lane, if the fast path has forwarded one. It forwards nothing more of this
	// datagram. Asked again about it, it reports false. It is called with a part of
	// the table of fragments locked.
	Passed(p *packet.Parsed, from verdict.Side) (Beginning, bool)
	// Yield gives back all that the fast path knows: how far flows have come, what rules
	// decided on, and to begun the beginnings of datagrams that it has forwarded, with
	// what tells a fragment's datagram from others. It is called once nothing is
	// forwarded there any more.
	Yield(begun func(p *packet.Parsed, from verdict.Side, b Beginning))
	// Block has the fast path leave all fragments of a datagram to the lanes, by what
	// tells a fragment's datagram from others: the table of fragments has some of it.
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
	Fragmented bool // the datagram came in fragments; this is on the first of them
	Verdict    filter.Verdict
	Table      *filter.Table // that gave it
}

// learn notes a cacheable verdict on what was decoded last for the fast path.
func (d *direction) learn(v filter.Verdict) {
	l := Lesson{From: d.ingress.side, Fragmented: d.parsed.Fragmented, Verdict: v, Table: d.batch.policy}
	if l.Key.SetFast(&d.view, l.Table.AnyVLANs()) {
		d.batch.lessons = append(d.batch.lessons, l)
	}
}

// FastCounts are frames that came in by one side and that the fast path has dealt
// with, since it was started.
type FastCounts struct {
	Forwarded, ForwardedBytes uint64
	Dropped                   [verdict.Reasons]uint64 // frames, by verdict.Reason
	DroppedBytes              uint64
}

// FastEntry is what the fast path does with the datagrams of one direction of a flow.
type FastEntry struct {
	Action           verdict.Action
	Reason           verdict.Reason // of a drop
	Rule             verdict.Rule   // that decided; 0 where none did
	Whole, Fragments bool           // which datagrams it is of
	Frames, Bytes    uint64         // of that direction, that it has dealt with so far
	Seen             time.Duration  // of the last of them, on the policy's clock
}

// HasFastPath reports whether a fast path carries out what was decided.
func (b *Bump) HasFastPath() bool { return b.fastPath != nil }

// FastEntry returns what the fast path does with a datagram; false where it has no entry
// for it.
func (b *Bump) FastEntry(v *packet.View) (e FastEntry, known bool) {
	var k flow.Key
	if b.fastPath == nil || !k.SetFast(v, b.policy.Load().AnyVLANs()) {
		return e, false
	}
	return b.fastPath.Entry(&k, v.From)
}
