package stack

import (
	"container/heap"
	"sync"
	"time"

	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// shard is the part of a table that some of the sources share.
type shard struct {
	options   *Options
	credits   *credits
	bytes     int // limit on charged
	datagrams int // limit on the number of datagrams
	slot      int // bytes that a datagram weighs in addition to its charge: bytes divided by datagrams
	share     int // bytes of weight that a source may have before it can be evicted from first

	mu sync.Mutex
	// mu guards what follows, and the datagrams in it.
	ledger    Ledger         // of the goroutine that holds the lock
	engine    *gvisor.Engine // nil if datagrams are not reassembled
	waiting   map[key]*Datagram
	latest    *Datagram // the one found last: the fragments of a datagram arrive together
	sources   map[source]*load
	heavy     loads          // the sources that hold more than their share
	deadlines [families]list // byDeadline: one timeout per family, so they are in order of arrival
	charged   int            // bytes, for everything that is held
	number    uint64         // of the latest datagram
	cursors   []*cursor      // of the walks in progress
}

// A source's share of a shard is at least the weight of the largest datagram, in fragments of
// 1,480 bytes.
const (
	shares          = 64 // of a shard
	largestDatagram = 128 << 10
)

func newShard(o *Options, c *credits, bytes, datagrams int) *shard {
	slot := bytes / datagrams
	s := &shard{
		options:   o,
		credits:   c,
		bytes:     bytes,
		datagrams: datagrams,
		slot:      slot,
		share:     max(bytes/shares, largestDatagram+slot),
		waiting:   make(map[key]*Datagram),
		sources:   make(map[source]*load),
	}
	for f := range s.deadlines {
		s.deadlines[f].kind = byDeadline
	}
	return s
}

// lock locks the shard for a caller whose ledger is told about changes.
func (s *shard) lock(l Ledger) {
	s.mu.Lock()
	s.ledger = l
}

// find returns the datagram with a key, or a new one if no fragment of it has arrived.
func (s *shard) find(k key, from source, now time.Time) *Datagram {
	s.expire(now)
	if s.latest != nil && s.latest.key == k {
		return s.latest
	}
	d := s.waiting[k]
	if d == nil {
		s.makeRoom(datagramCost, 1)
		d = s.begin(k, from, now)
	}
	s.latest = d
	return d
}

// begin adds a new datagram to the table.
func (s *shard) begin(k key, from source, now time.Time) *Datagram {
	l := s.sources[from]
	if l == nil {
		l = loadPool.Get().(*load)
		*l = load{source: from, datagrams: list{kind: byArrival}, rank: light}
		s.sources[from] = l
	}
	s.number++
	l.begun++
	d := datagrams.Get().(*Datagram)
	d.key, d.number, d.family, d.load = k, s.number, k.family, l
	d.begun = l.begun
	d.deadline = now.Add(s.options.timeout(k.family))
	s.waiting[k] = d
	s.deadlines[d.family].push(d)
	l.datagrams.push(d)
	s.charge(d, datagramCost)
	s.weigh(l, s.slot)
	return d
}

// poison discards a datagram and poisons its key, so that no fragment of it passes until its
// deadline. RFC 5722 §4 requires a node to discard the fragments that have not yet arrived,
// too.
func (s *shard) poison(d *Datagram, why verdict.Reason) {
	s.dropFrames(d, why)
	d.claims = d.claims.cleared()
	d.poisoned, d.verdict = true, why
	s.charge(d, datagramCost-d.bytes)
}

// discard drops the fragments of an incomplete datagram, for a reason.
func (s *shard) discard(d *Datagram, why verdict.Reason) {
	s.remove(d)
	if d.pinned { // shard.settle releases it
		s.dropFrames(d, why)
		return
	}
	s.ledger.Dropped(d, why)
}

// dropFrames drops the held frames of a datagram that stays in the table. It passes the frames
// to the ledger as a datagram of their own.
func (s *shard) dropFrames(d *Datagram, why verdict.Reason) {
	if len(d.fragments) == 0 {
		return
	}
	dropped := d.detach()
	dropped.extent = d.extent
	dropped.claims, d.claims = d.claims, dropped.claims
	s.ledger.Dropped(dropped, why)
}

// remove removes a datagram from the table.
func (s *shard) remove(d *Datagram) {
	l := d.load
	s.charge(d, -d.bytes)
	s.weigh(l, -s.slot)
	delete(s.waiting, d.key)
	if s.latest == d {
		s.latest = nil
	}
	s.pass(d)
	s.deadlines[d.family].remove(d)
	l.datagrams.remove(d)
	if l.datagrams.first == nil {
		delete(s.sources, l.source)
		loadPool.Put(l)
	}
	d.load = nil
}

// charge adds the memory that a datagram takes or, if negative, frees.
func (s *shard) charge(d *Datagram, bytes int) {
	s.charged += bytes
	d.bytes += bytes
	s.weigh(d.load, bytes)
}

// weigh adds a source to the heap of heavy ones, or removes it, depending on its weight.
func (s *shard) weigh(l *load, bytes int) {
	l.weight += bytes
	switch isHeavy := l.weight > s.share; {
	case isHeavy && l.rank == light:
		heap.Push(&s.heavy, l)
	case isHeavy:
		heap.Fix(&s.heavy, l.rank)
	case l.rank != light:
		heap.Remove(&s.heavy, l.rank)
	}
}

// makeRoom evicts datagrams until the given amount fits into the shard. It reports whether it
// evicted any. A new datagram is never refused: the fragments of an honest datagram arrive
// within milliseconds, and the datagrams of a flood are never completed.
func (s *shard) makeRoom(bytes, datagrams int) (evicted bool) {
	for len(s.waiting) > 0 && (s.charged+bytes > s.bytes || len(s.waiting)+datagrams > s.datagrams) {
		s.discard(s.victim(), verdict.FragmentEvicted)
		evicted = true
	}
	return evicted
}

// victim returns the datagram to evict first: the oldest one of the source that holds most, if
// that is more than its share. If no source exceeds its share, as in a flood from spoofed
// addresses, it is the oldest datagram of all. Choosing by what sources hold would then evict
// honest sources with two held fragments before those of a flood with one each.
func (s *shard) victim() *Datagram {
	if len(s.heavy) > 0 {
		return s.heavy[0].datagrams.first
	}
	a, b := s.deadlines[familyIPv4].first, s.deadlines[familyIPv6].first
	if a == nil || b != nil && b.number < a.number {
		return b
	}
	return a
}

// expire drops the datagrams that were incomplete at their deadline.
func (s *shard) expire(now time.Time) {
	for f := range s.deadlines {
		deadlines := &s.deadlines[f]
		for d := deadlines.first; d != nil && !now.Before(d.deadline); d = deadlines.first {
			s.discard(d, verdict.FragmentTimeout)
		}
	}
}

// close drops everything that is held, oldest first, and frees the engine.
func (s *shard) close(l Ledger) {
	s.lock(l)
	defer s.mu.Unlock()
	for f := range s.deadlines {
		for d := s.deadlines[f].first; d != nil; d = s.deadlines[f].first {
			s.discard(d, verdict.FragmentShutdown)
		}
	}
	if s.engine != nil {
		s.engine.Close()
	}
}
