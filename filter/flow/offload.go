package flow

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Offload is a fast path that applies verdicts on flows, so that the table does not see their
// datagrams. It knows a flow by a slot: a number from 1 that [Table.Attach] assigns to the
// flow. No other flow has the slot until the table has released it, or until [Progress.Stopped]
// has told the table that it no longer owns the slot.
//
// The table calls an Offload with a part of itself locked. So an Offload must neither call the
// table nor wait for a goroutine that does. Any number of goroutines may call it at once, but
// only one at a time for the same slot.
type Offload interface {
	// Begin sets the state of a slot, before the slot is used, to what is known about a flow.
	Begin(slot uint32, p *Progress)
	// Load fills in what the fast path did for the flow. It may leave out Idle, and the
	// constant fields of a Way.
	Load(slot uint32, p *Progress)
	// Store takes over the TCP fields that a segment has changed which the fast path did not
	// forward. A field of p that is not ahead of the slot's changes nothing.
	Store(slot uint32, p *Progress)
	// Release stops the fast path from forwarding for the flow, and then fills in what it did,
	// up to the last datagram. The slot no longer belongs to the flow.
	Release(slot uint32, p *Progress)
	// Forget stops the fast path from dropping frames with the key of a flow that is about to
	// begin. VLANs of the key are 0 if flows are independent of them.
	Forget(k *Key)
}

// Progress is the state of a flow that a fast path forwards.
type Progress struct {
	Ways [verdict.Sides]Way // by ingress side
	// Last is only for TCP: the latest segment of both sides.
	Last Last
	// Idle is how long a flow may be idle, in both directions, before the table must decide
	// whether it still exists. It is constant while a flow has a slot.
	Idle time.Duration
	// Stopped is set if the fast path no longer forwards for the flow and uses the slot for
	// something else.
	Stopped bool
}

// Way is the state of one direction.
type Way struct {
	// Datagrams and Bytes count what the fast path has forwarded since the last Load of the
	// slot. Bytes include IP headers. A datagram in fragments is counted with its first
	// fragment, as it is for rules.
	Datagrams, Bytes uint64
	// Seen is when the last frame was forwarded, on the policy's clock. At the beginning, it is
	// when the flow was last seen.
	Seen time.Duration
	// For TCP, what its sender has sent and offered so far, see RFC 9293 §3.3.1:
	End    uint32 // the highest sequence number that it sent, plus one
	MaxEnd uint32 // the highest sequence number that its peer has a window for
	MaxWin uint32 // the largest window that it offered, in bytes
	MaxAck uint32 // the highest sequence number that it acknowledged
	// The following are constant while a flow has a slot.
	Scale uint8 // window scale of its windows
	SACK  bool  // it accepts selective acknowledgements: those of its peer count by their highest block
	// Liberal: a segment that does not fit these numbers is forwarded, too, and changes none of
	// them.
	Liberal bool
}

// Last holds the fields of the latest segment that has the ACK flag and no other flag that
// matters to the state of its connection.
type Last struct {
	From          verdict.Side
	Seq, Ack, End uint32 // End is the next sequence number
	Window        uint16 // not scaled
	Retransmits   uint8  // how often it was repeated without another segment in between; at most 3
}

// Offloadable reports whether a fast path may forward the flow's datagrams instead of the
// table. It may as long as further datagrams of the same kind change only numbers: always for
// UDP and ICMP echo, and for TCP while the connection is established and both ends are known.
// It never may for a denied flow.
func (f *Flow) Offloadable() bool {
	switch f.key.protocol() {
	case packet.ProtocolTCP:
		a, b := &f.tcp.ends[verdict.Inside], &f.tcp.ends[verdict.Outside]
		return !f.Denied && f.State == Established && f.assured && a.maxWin != 0 && b.maxWin != 0 &&
			a.flags&b.flags&acked != 0 && (a.flags|b.flags)&lengthUnknown == 0
	case packet.ProtocolUDP:
		return !f.Denied
	}
	return !f.Denied && f.State == Query
}

// Fast reports whether a fast path forwards for the flow.
func (f *Flow) Fast() bool { return f.slot != 0 }

// SetOffload sets the fast path that forwards for flows.
func (t *Table) SetOffload(o Offload) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.offload = o
		s.mu.Unlock()
	}
}

// Attach assigns a slot to the flow of a key that a policy of the given generation accepts, and
// calls the [Offload]'s Begin with it. It returns false if no such flow is known or if the flow
// may not be offloaded. If the flow already has this slot, it keeps it; if it has another one,
// that one is released.
func (t *Table) Attach(k *Key, generation, slot uint32, now time.Duration) bool {
	s, chain := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(k, chain, t.anyVLANs, now)
	if i == none {
		return false
	}
	f := &s.flows[i]
	if f.Generation != generation || !f.Offloadable() {
		return false
	}
	if f.slot != slot {
		s.release(i)
		f.slot = slot
		s.report(f)
		s.offload.Begin(slot, &s.progress)
	}
	return true
}

// Detach releases a slot of the flow of a key, if the flow has that slot.
func (t *Table) Detach(k *Key, slot uint32) {
	s, chain := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.chains[chain]; i != none; i = s.flows[i].next {
		if f := &s.flows[i]; f.slot == slot && f.key.is(k, t.anyVLANs) {
			s.release(i)
			return
		}
	}
}

// Known reports whether there is a flow with a key.
func (t *Table) Known(k *Key, now time.Duration) bool {
	s, chain := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(k, chain, t.anyVLANs, now) != none
}

// forget stops the fast path from dropping frames of a flow that begins.
func (s *shard) forget(k *Key) {
	if s.offload == nil {
		return
	}
	s.begun = *k
	if s.anyVLANs {
		s.begun.VLANs = 0
	}
	s.offload.Forget(&s.begun)
}

// sync updates a flow with what the fast path has forwarded for it.
func (s *shard) sync(i uint32) {
	f := &s.flows[i]
	s.progress = Progress{}
	s.offload.Load(f.slot, &s.progress)
	if s.progress.Stopped {
		f.slot = 0
	}
	s.catchUp(i)
}

// takeOffloaded judges a datagram by an offloaded flow, and tells the fast path what has
// changed. If the flow may no longer be offloaded, it first releases it from the fast path,
// which may have forwarded something meanwhile, and judges the datagram again.
func (s *shard) takeOffloaded(i uint32, v *packet.View, now time.Duration) result {
	f := &s.flows[i]
	before := *f
	r := f.take(v, now)
	switch {
	case !f.Offloadable():
		*f = before
		s.release(i)
		return f.take(v, now)
	case f.key.protocol() == packet.ProtocolTCP:
		s.report(f)
		s.offload.Store(f.slot, &s.progress)
	}
	return r
}

// release releases a flow from the fast path.
func (s *shard) release(i uint32) {
	f := &s.flows[i]
	if f.slot == 0 {
		return
	}
	s.progress = Progress{}
	s.offload.Release(f.slot, &s.progress)
	f.slot = 0
	s.catchUp(i)
}

// report fills in the progress of a flow.
func (s *shard) report(f *Flow) {
	s.progress = Progress{}
	for side := range f.tcp.ends {
		e, w := &f.tcp.ends[side], &s.progress.Ways[side]
		w.Seen = f.seen
		w.End, w.MaxEnd, w.MaxWin, w.MaxAck = e.end, e.maxEnd, e.maxWin, e.maxAck
		w.Scale, w.SACK, w.Liberal = e.scale, e.flags&sackPermitted != 0, e.flags&liberal != 0
	}
	s.progress.Idle = f.idle()
	l := &f.tcp.last
	s.progress.Last = Last{From: l.from, Seq: l.seq, Ack: l.ack, End: l.end, Window: l.window, Retransmits: l.retransmits}
}

// idle returns the shortest timeout that a flow can have while it may be offloaded.
func (f *Flow) idle() time.Duration {
	switch f.key.protocol() {
	case packet.ProtocolTCP:
		return min(durations[Established], durations[unacknowledged], durations[retransmitted])
	case packet.ProtocolUDP:
		return min(durations[Unreplied], durations[Replied], durations[stream])
	}
	return durations[Query]
}

// catchUp updates a flow to its progress, as if the table had seen each datagram.
func (s *shard) catchUp(i uint32) {
	f, p := &s.flows[i], &s.progress
	seen := f.seen
	forwarded := false
	for side := range p.Ways {
		w := &p.Ways[side]
		if w.Datagrams > 0 {
			forwarded = true
			f.sent[side].Packets += w.Datagrams
			f.sent[side].Bytes += w.Bytes
			seen = max(seen, w.Seen)
		}
	}
	protocol := f.key.protocol()
	// A segment may already be noted but not yet counted.
	if protocol == packet.ProtocolTCP && f.tcp.catchUp(p) {
		forwarded = true
	}
	if !forwarded {
		return
	}
	s.note(i)
	switch {
	case protocol == packet.ProtocolTCP && f.State == Established:
		f.tcp.takeLast(&p.Last)
		f.timeout = f.tcp.timeout()
	case protocol == packet.ProtocolUDP:
		f.takeUDP(protocol, seen)
	}
	s.touch(i, seen)
}

// catchUp takes over the numbers of both ends, and reports whether they have changed.
func (c *tcp) catchUp(p *Progress) (changed bool) {
	for side := range verdict.Side(verdict.Sides) {
		e, w, peer := &c.ends[side], &p.Ways[side], &p.Ways[side.Other()]
		switch {
		case peer.MaxAck == w.End:
			e.flags &^= unacked
		case w.End != e.end:
			e.flags |= unacked
		}
	}
	before := c.ends
	for side := range c.ends {
		e, w := &c.ends[side], &p.Ways[side]
		e.end, e.maxEnd, e.maxWin, e.maxAck = w.End, w.MaxEnd, max(e.maxWin, w.MaxWin), w.MaxAck
	}
	return c.ends != before
}

// takeLast takes over the latest segment.
func (c *tcp) takeLast(p *Last) {
	l := &c.last
	l.kind, l.from, l.retransmits = kindAck, p.From, p.Retransmits
	l.seq, l.ack, l.end, l.window = p.Seq, p.Ack, p.End, p.Window
}
