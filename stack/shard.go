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
	bytes     int // the most it charges for
	datagrams int // the most it holds
	slot      int // bytes that a datagram weighs beside those charged for: its part of datagrams
	share     int // bytes of weight that a source may have without being held to account

	mu sync.Mutex
	// mu guards what follows, and the datagrams in it.
	ledger    Ledger         // of who has locked it
	engine    *gvisor.Engine // nil where datagrams are not put together
	waiting   map[key]*Datagram
	latest    *Datagram // in waiting, that was found last: fragments of one come together
	sources   map[source]*load
	heavy     loads          // the sources that hold more than their share
	deadlines [families]list // byDeadline: one timeout a family, so arrival orders them
	charged   int            // bytes, for all that waits
	number    uint64         // of the latest datagram
	cursors   []*cursor      // of those who walk through what waits
}

// A source's share of a shard is no less than what the largest datagram weighs,
// in fragments of 1,480 bytes.
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

// lock locks the shard for who has what happens told to a ledger.
func (s *shard) lock(l Ledger) {
	s.mu.Lock()
	s.ledger = l
}

// find returns the datagram that a key stands for, a new one where nothing of
// it has come so far.
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

// begin puts a new datagram on the table.
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

// poison gives a datagram up and keeps its key from being used, so that
// nothing of it passes until its deadline: RFC 5722 §4 has a node discard
// also those fragments that did not arrive yet.
func (s *shard) poison(d *Datagram, why verdict.Reason) {
	s.dropFrames(d, why)
	d.claims = d.claims.cleared()
	d.poisoned, d.verdict = true, why
	s.charge(d, datagramCost-d.bytes)
}

// discard drops a datagram that waits, for why.
func (s *shard) discard(d *Datagram, why verdict.Reason) {
	s.remove(d)
	if d.pinned { // shard.settle releases it
		s.dropFrames(d, why)
		return
	}
	s.ledger.Dropped(d, why)
}

// dropFrames drops what waits of a datagram that is kept itself: the frames go
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

// remove takes a datagram off the table.
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

// charge accounts for memory that a datagram takes or, negative, gives back.
func (s *shard) charge(d *Datagram, bytes int) {
	s.charged += bytes
	d.bytes += bytes
	s.weigh(d.load, bytes)
}

// weigh puts a source among those that stand out, or takes it from there, as
// its weight has it.
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

// makeRoom evicts datagrams until so much more fits into the shard, and reports
// whether it evicted any. A newcomer is never refused: the fragments of an honest
// datagram come within milliseconds of one another, and those of a flood never
// complete.
func (s *shard) makeRoom(bytes, datagrams int) (evicted bool) {
	for len(s.waiting) > 0 && (s.charged+bytes > s.bytes || len(s.waiting)+datagrams > s.datagrams) {
		s.discard(s.victim(), verdict.FragmentEvicted)
		evicted = true
	}
	return evicted
}

// victim returns who gives way first: the oldest datagram of the source that
// holds most, where that is more than its share. Where no source stands out,
// as in a flood from addresses made up, it is the oldest of all; by what they
// hold, honest sources with two fragments in waiting would come before those of
// a flood with one each.
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

// expire drops what was not whole at its deadline.
func (s *shard) expire(now time.Time) {
	for f := range s.deadlines {
		deadlines := &s.deadlines[f]
		for d := deadlines.first; d != nil && !now.Before(d.deadline); d = deadlines.first {
			s.discard(d, verdict.FragmentTimeout)
		}
	}
}

// close drops all that waits, oldest first, and frees the engine.
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
