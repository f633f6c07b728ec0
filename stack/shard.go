package stack

import (
	"container/heap"
	"sync"
	"time"

	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"fragwall/packet"
)

// shard is the part of a table that some of the sources share.
type shard struct {
	options   *Options
	bytes     int // the most it charges for
	datagrams int // the most it holds

	mu sync.Mutex
	// mu guards what follows, and the datagrams in it.
	engine  *engine
	waiting map[key]*Datagram
	sources map[source]*load
	family  [families]waiting
	charged int    // bytes, for all that waits
	number  uint64 // of the latest datagram
}

// waiting is what a shard keeps of one family.
type waiting struct {
	deadlines   list  // byDeadline: one timeout a family, so arrival orders them
	heaviest    loads // the sources of what waits
	engineBytes int   // what gVisor counts
}

func newShard(o *Options, bytes, datagrams int) *shard {
	s := &shard{
		options:   o,
		bytes:     bytes,
		datagrams: datagrams,
		engine:    newEngine(),
		waiting:   make(map[key]*Datagram),
		sources:   make(map[source]*load),
	}
	for f := range s.family {
		s.family[f].deadlines.kind = byDeadline
	}
	return s
}

// add takes in a fragment; see [Table.Add].
func (s *shard) add(frame []byte, p *packet.Parsed, from source, now time.Time) (*Datagram, packet.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)

	k := keyOf(p, from.side)
	d := s.waiting[k]
	if d == nil {
		s.makeRoom(from.family, datagramCharge, 0, 1)
		d = s.begin(k, from, now)
	}
	if d.poisoned {
		return nil, packet.FragmentPoisoned
	}
	i, why := d.place(frame, p)
	switch {
	case why == packet.FragmentDuplicate:
		return nil, why
	case why == packet.Passed && len(d.fragments) == s.options.MaxFragments:
		why = packet.FragmentTooMany
	}
	if why != packet.Passed {
		s.poison(d, why)
		return nil, why
	}

	bytes := charge(len(frame))
	engineBytes := engineCharge(d.family, p.End-p.Fragment.Payload)
	if s.makeRoom(from.family, bytes, engineBytes, 0); s.waiting[k] != d {
		return nil, packet.FragmentEvicted
	}
	s.charge(d, bytes, engineBytes)
	piece, payload := d.insert(i, frame, p)
	s.options.Ledger.Held(d)
	return s.settle(d, s.engine.feed(piece, payload)), packet.Passed
}

// begin puts a new datagram on the table.
func (s *shard) begin(k key, from source, now time.Time) *Datagram {
	l := s.sources[from]
	if l == nil {
		l = &load{source: from, datagrams: list{kind: byArrival}}
		s.sources[from] = l
		heap.Push(&s.family[from.family].heaviest, l)
	}
	s.number++
	d := datagrams.Get().(*Datagram)
	d.key, d.number, d.family, d.load = k, s.number, from.family, l
	d.deadline = now.Add(s.options.timeout(from.family))
	s.waiting[k] = d
	s.family[d.family].deadlines.push(d)
	l.datagrams.push(d)
	s.charge(d, datagramCharge, 0)
	return d
}

// settle compares what the engine made of the latest fragment with what the
// table knows. It returns the datagram if both say that it is whole.
func (s *shard) settle(d *Datagram, whole *gstack.PacketBuffer) *Datagram {
	switch {
	case whole == nil && !d.complete():
		return nil
	case whole != nil && d.complete() && whole.Data().Size() == d.end:
		s.remove(d)
		d.whole = whole
		return d
	case whole != nil: // the engine has freed its fragments already
		whole.DecRef()
	default:
		s.cancel(d)
	}
	s.remove(d)
	s.options.Ledger.Dropped(d, packet.FragmentDisagreement)
	d.Release()
	return nil
}

// poison gives a datagram up and keeps its key from being used, so that
// nothing of it passes until its deadline: RFC 5722 §4 has a node discard
// also those fragments that did not arrive yet.
func (s *shard) poison(d *Datagram, why packet.Reason) {
	s.cancel(d)
	s.options.Ledger.Dropped(d, why)
	d.releaseFrames()
	d.poisoned = true
	s.charge(d, datagramCharge-d.bytes, -d.engineBytes)
}

// discard drops a datagram that waits, for why.
func (s *shard) discard(d *Datagram, why packet.Reason) {
	s.cancel(d)
	s.remove(d)
	s.options.Ledger.Dropped(d, why)
	d.Release()
}

// cancel has the engine free what it holds of a datagram.
func (s *shard) cancel(d *Datagram) {
	if len(d.fragments) > 0 {
		first := &d.fragments[0]
		s.engine.cancel(d.piece(first), int(first.length))
	}
}

// remove takes a datagram off the table.
func (s *shard) remove(d *Datagram) {
	s.charge(d, -d.bytes, -d.engineBytes)
	delete(s.waiting, d.key)
	w, l := &s.family[d.family], d.load
	w.deadlines.remove(d)
	l.datagrams.remove(d)
	if l.datagrams.first == nil {
		heap.Remove(&w.heaviest, l.rank)
		delete(s.sources, l.source)
	}
	d.load = nil
}

// charge accounts for memory that a datagram takes or, negative, gives back.
func (s *shard) charge(d *Datagram, bytes, engineBytes int) {
	w := &s.family[d.family]
	s.charged += bytes
	w.engineBytes += engineBytes
	d.bytes += bytes
	d.engineBytes += engineBytes
	d.load.bytes += bytes
	heap.Fix(&w.heaviest, d.load.rank)
}

// makeRoom evicts datagrams until so much more fits into the shard and its
// engine. A newcomer is never refused: the fragments of an honest datagram
// come within milliseconds of one another, and those of a flood never
// complete. So the victim is the oldest datagram of the source that holds
// most.
func (s *shard) makeRoom(f family, bytes, engineBytes, datagrams int) {
	for s.family[f].engineBytes+engineBytes > engineLimit {
		s.discard(s.family[f].victim(), packet.FragmentEvicted)
	}
	for len(s.waiting) > 0 && (s.charged+bytes > s.bytes || len(s.waiting)+datagrams > s.datagrams) {
		v, other := s.family[f].victim(), s.family[1-f].victim()
		if v == nil || other != nil && other.load.bytes > v.load.bytes {
			v = other
		}
		s.discard(v, packet.FragmentEvicted)
	}
}

// victim returns the oldest datagram of the source that holds most; nil where
// nothing waits.
func (w *waiting) victim() *Datagram {
	if len(w.heaviest) == 0 {
		return nil
	}
	return w.heaviest[0].datagrams.first
}

// expire drops what was not whole at its deadline.
func (s *shard) expire(now time.Time) {
	for f := range s.family {
		deadlines := &s.family[f].deadlines
		for d := deadlines.first; d != nil && !now.Before(d.deadline); d = deadlines.first {
			s.discard(d, packet.FragmentTimeout)
		}
	}
}

// close drops all that waits and frees the engine.
func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.waiting {
		s.discard(d, packet.FragmentShutdown)
	}
	s.engine.close()
}
