package flow

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Offload is a fast path that carries out what was decided of flows, without
// showing their datagrams to the table. It knows a flow by a slot, a number from 1
// on, which [Table.Attach] gives to the flow. Until the table has released the slot,
// or [Progress.Stopped] has told it that the slot is not its own any more, no other
// flow has it.
//
// The table calls an Offload with a part of it locked. So an Offload must not call
// the table, nor wait for anyone who does. Any number of goroutines may call it at
// once, those of one slot one after another.
type Offload interface {
	// Begin makes what is known of a flow the state of a slot, before the slot is
	// used.
	Begin(slot uint32, p *Progress)
	// Load fills in what the fast path did for the flow.
	// Idle, and what does not change of a Way, may be left out.
	Load(slot uint32, p *Progress)
	// Store takes over what a segment has changed of the TCP fields, which was not
	// forwarded by the fast path. A field of p that is not further than that of the
	// slot changes nothing.
	Store(slot uint32, p *Progress)
	// Release stops the fast path from forwarding anything more for the flow, and
	// then fills in what it did, to the last datagram. The slot is not the flow's
	// any more.
	Release(slot uint32, p *Progress)
	// Forget stops the fast path from dropping what has the key of a flow that is
	// about to begin. VLANs of the key are 0 where flows are the same in any.
	Forget(k *Key)
}

// Progress is how far a flow that a fast path forwards has come.
type Progress struct {
	Ways [verdict.Sides]Way // by the side that datagrams come in by
	// Last is of TCP: the latest segment of both sides.
	Last Last
	// Idle is for how long a flow may be idle, in both directions, until the table has
	// to say whether it is there still. It does not change while a flow has a slot.
	Idle time.Duration
	// Stopped is set where the fast path forwards nothing more for the flow, and has
	// another use for the slot.
	Stopped bool
}

// Way is how far one direction has come.
type Way struct {
	// Datagrams were forwarded by the fast path since the last Load of the slot,
	// and have so many bytes, IP headers included. A datagram in fragments counts
	// by its first, as it does for rules.
	Datagrams, Bytes uint64
	// Seen is when the last frame was forwarded, by the policy's clock; at the
	// beginning, when the flow was seen last.
	Seen time.Duration
	// Of TCP, what its sender has sent and offered so far, see RFC 9293 §3.3.1:
	End    uint32 // the highest sequence number that it sent, and one
	MaxEnd uint32 // the highest that its peer has a window for
	MaxWin uint32 // the largest window that it offered, in bytes
	MaxAck uint32 // the highest sequence number that it acknowledged
	// The following do not change while a flow has a slot.
	Scale uint8 // of its windows
	SACK  bool  // it takes selective acknowledgements: those of its peer count by their highest block
	// Liberal: a segment that does not fit these numbers is forwarded, too, and
	// changes none.
	Liberal bool
}

// Last is what the latest segment with the ACK flag, and no other one that matters
// to the state of its connection, said.
type Last struct {
	From          verdict.Side
	Seq, Ack, End uint32 // End is the sequence number behind it
	Window        uint16 // not scaled
	Retransmits   uint8  // how often the same came again, one after another; 3 at most
}

// Offloadable reports whether a fast path may forward the flow's datagrams in the
// place of the table, as it may while the next of its kind change nothing but
// numbers: of UDP and ICMP echo always, of TCP while the connection is established
// and both ends are known. Of a flow that is denied it never may.
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

// SetOffload has a fast path forward for flows.
func (t *Table) SetOffload(o Offload) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.offload = o
		s.mu.Unlock()
	}
}

// Attach gives a slot to the flow of a key, which a policy of that generation
// accepts, and has the [Offload] begin with it. It reports false where no such
// flow is known, or it may not be offloaded. A flow that has the slot already keeps
// it; any other slot that it has is released.
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

// Detach releases the slot of the flow of a key, if it is the flow's.
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

// Known reports whether there is a flow of a key.
func (t *Table) Known(k *Key, now time.Duration) bool {
	s, chain := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(k, chain, t.anyVLANs, now) != none
}

// forget has the fast path drop nothing more of a flow that begins.
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

// sync brings a flow on by what the fast path has forwarded for it.
func (s *shard) sync(i uint32) {
	f := &s.flows[i]
	s.progress = Progress{}
	s.offload.Load(f.slot, &s.progress)
	if s.progress.Stopped {
		f.slot = 0
	}
	s.catchUp(i)
}

// takeOffloaded judges a datagram by an offloaded flow, and tells the fast path what
// has changed. A flow that may not be offloaded any more is taken from the fast path
// first, which may have forwarded something meanwhile, and the datagram judged again.
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

// release takes a flow from the fast path.
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

// idle returns the shortest timeout that a flow can have as long as it may be
// offloaded.
func (f *Flow) idle() time.Duration {
	switch f.key.protocol() {
	case packet.ProtocolTCP:
		return min(durations[Established], durations[unacknowledged], durations[retransmitted])
	case packet.ProtocolUDP:
		return min(durations[Unreplied], durations[Replied], durations[stream])
	}
	return durations[Query]
}

// catchUp brings a flow to where its progress is, as if each datagram had come to
// the table.
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
	// A segment may be noted, and not counted yet.
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

// catchUp takes over the numbers of both ends, and reports whether they are others
// than before.
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
