package stack

import (
	"container/heap"
	"sync"
	"time"

	"fragwall/packet"
)

// shard is the part of a table that some of the sources share.
type shard struct {
	options   *Options
	costs     costs
	bytes     int // the most it charges for
	datagrams int // the most it holds

	mu sync.Mutex
	// mu guards what follows, and the datagrams in it.
	engine  *engine // nil where datagrams are not put together
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

func newShard(o *Options, c costs, bytes, datagrams int) *shard {
	s := &shard{
		options:   o,
		costs:     c,
		bytes:     bytes,
		datagrams: datagrams,
		waiting:   make(map[key]*Datagram),
		sources:   make(map[source]*load),
	}
	for f := range s.family {
		s.family[f].deadlines.kind = byDeadline
	}
	return s
}

// find returns the datagram that a key stands for, a new one where nothing of
// it has come so far.
func (s *shard) find(k key, from source, now time.Time) *Datagram {
	s.expire(now)
	if d := s.waiting[k]; d != nil {
		return d
	}
	s.makeRoom(from.family, s.costs.datagram, 0, 1)
	return s.begin(k, from, now)
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
	s.charge(d, s.costs.datagram, 0)
	return d
}

// poison gives a datagram up and keeps its key from being used, so that
// nothing of it passes until its deadline: RFC 5722 §4 has a node discard
// also those fragments that did not arrive yet.
func (s *shard) poison(d *Datagram, why packet.Reason) {
	s.cancel(d)
	s.options.Ledger.Dropped(d, why)
	d.releaseFrames()
	d.claims = d.claims.cleared()
	d.poisoned = true
	s.charge(d, s.costs.datagram-d.bytes, -d.engineBytes)
}

// discard drops a datagram that waits, for why.
func (s *shard) discard(d *Datagram, why packet.Reason) {
	s.cancel(d)
	s.remove(d)
	s.options.Ledger.Dropped(d, why)
	d.Release()
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

// close drops all that waits, oldest first, and frees the engine.
func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.family {
		for d := s.family[f].deadlines.first; d != nil; d = s.family[f].deadlines.first {
			s.discard(d, packet.FragmentShutdown)
		}
	}
	if s.engine != nil {
		s.engine.close()
	}
}
