package flow

import (
	"slices"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// class ranks flows by the evidence that they are wanted. A full table evicts from the lower
// classes first.
type class uint8

const (
	// unanswered: only the originator has sent, or there is no room in a higher class.
	unanswered class = iota
	// answered: the responder has answered.
	answered
	// handshaken: TCP or SCTP, and the originator answered the responder's SYN or cookie, which
	// is impossible from a spoofed address.
	handshaken
	classes
)

// merit returns the class that a flow qualifies for. A denied flow stays in its class: a flood
// must not make the table forget that it was denied.
func (f *Flow) merit() class {
	switch {
	case f.State == TimeWait, f.State == Close, f.State == Closed, !f.replied:
		return unanswered
	case f.assured && (f.key.protocol() == packet.ProtocolTCP || f.key.protocol() == packet.ProtocolSCTP):
		return handshaken
	}
	return answered
}

// links are the fields by which a shard keeps its flows in order.
type links struct {
	chain, next uint32        // chain of the flow's hash; number of the next flow in it
	neighbors   [queues]place // by the queue that the flow is in
	source      uint32        // number in the shard; none if the flow is unused
}

// The queues that a flow is in.
const (
	ofClass  = iota // of its class
	ofSource        // of its source in its class
	queues
)

// queue is a list of flows by their numbers, from the one that has been idle longest to the one
// seen last.
type queue struct{ oldest, newest uint32 }

var emptyQueue = queue{none, none}

// place is the position of a flow in a queue: the numbers of its neighbors.
type place struct{ older, newer uint32 }

// push puts a flow at the end of a queue of the given kind.
func (s *shard) push(q *queue, kind int, i uint32) {
	s.flows[i].neighbors[kind] = place{q.newest, none}
	if q.newest == none {
		q.oldest = i
	} else {
		s.flows[q.newest].neighbors[kind].newer = i
	}
	q.newest = i
}

// unlink removes a flow from a queue of the given kind.
func (s *shard) unlink(q *queue, kind int, i uint32) {
	at := s.flows[i].neighbors[kind]
	if at.older == none {
		q.oldest = at.newer
	} else {
		s.flows[at.older].neighbors[kind].newer = at.newer
	}
	if at.newer == none {
		q.newest = at.older
	} else {
		s.flows[at.newer].neighbors[kind].older = at.older
	}
}

// order is the state by which a full shard decides which flow to evict. Each class has a queue.
// In each class, the flows of a source, the prefix of their originators, have a queue, too.
//
// A new flow is never refused: the lowest class always has some room, so that a reply still
// finds its flow. A flow that reaches a higher class stays there, unless its source holds more
// than its share: then another flow of that class may take its place.
type order struct {
	class   [classes]counted
	heavy   [classes][]uint32 // the sources that hold more than their share
	sources []source
	chains  []uint32 // of sources, by a keyed hash
	free    uint32   // the first unused source, chained by next
	share   uint32   // flows that a source may have in a class of the shard
	reserve int      // flows: room reserved for the lowest class
}

// counted is a queue with its length.
type counted struct {
	queue
	count int
}

// source is the prefix that flows of a class come from.
type source struct {
	prefix uint64
	class  class
	queue
	count uint32
	next  uint32 // in the chain of its hash
}

// A source may hold 1/shareOf of the flows of each class of a shard before its flows are
// evicted in favour of others, and 1/reserveOf of the shard is reserved for the lowest class.
const (
	shareOf      = 64
	minimumShare = 16 // flows, in a small table
	reserveOf    = 4
)

func (o *order) init(limit int) {
	for c := range o.class {
		o.class[c].queue = emptyQueue
	}
	o.chains = empty(limit)
	o.free = none
	o.share, o.reserve = uint32(max(limit/shareOf, minimumShare)), limit/reserveOf
}

// sourcePrefix returns the prefix of the flow's originator that the flow is charged to: /24 for
// IPv4 and /56 for IPv6, in which a single sender may have many addresses.
func (f *Flow) sourcePrefix() uint64 {
	a := f.key.Inside
	if f.Origin == verdict.Outside {
		a = f.key.Outside
	}
	if f.key.Ports&1 == 0 {
		return a[1] & 0xffffff00 // an IPv4 address is in the lowest 32 bits
	}
	return a[0]&^0xff | 1
}

// enter puts a flow at the end of a class.
func (s *shard) enter(i uint32, c class) {
	f := &s.flows[i]
	f.class = c
	l := &s.class[c]
	s.push(&l.queue, ofClass, i)
	l.count++

	f.source = s.sourceOf(f.sourcePrefix(), c)
	from := &s.sources[f.source]
	s.push(&from.queue, ofSource, i)
	if from.count++; from.count == s.share+1 {
		s.heavy[c] = append(s.heavy[c], f.source)
	}
}

// leave removes a flow from its class.
func (s *shard) leave(i uint32) {
	f := &s.flows[i]
	l := &s.class[f.class]
	s.unlink(&l.queue, ofClass, i)
	l.count--

	from := &s.sources[f.source]
	s.unlink(&from.queue, ofSource, i)
	if from.count == s.share+1 {
		heavy := s.heavy[f.class]
		at := slices.Index(heavy, f.source)
		heavy[at] = heavy[len(heavy)-1]
		s.heavy[f.class] = heavy[:len(heavy)-1]
	}
	if from.count--; from.count == 0 {
		s.freeSource(f.source)
	}
}

// moveAfter is how much later a flow must be seen before it moves to the end of its queues, so
// that most datagrams write to one flow only.
const moveAfter = 250 * time.Millisecond

// touch records that a flow was seen, and moves it to the class that it qualifies for.
func (s *shard) touch(i uint32, now time.Duration) {
	f := &s.flows[i]
	moves := now/moveAfter > f.seen/moveAfter
	f.seen = max(f.seen, now)
	switch c := f.merit(); {
	case c < f.class, c > f.class && s.makeRoom(f, c):
		s.leave(i)
		s.enter(i, c)
	case moves:
		s.leave(i)
		s.enter(i, f.class)
	}
}

// makeRoom makes room for a flow in one of the higher classes. If they are full, it moves
// another flow back to the lowest class: one of a higher class below c, or one of a source that
// holds more than its share. It reports whether there is room.
func (s *shard) makeRoom(f *Flow, c class) bool {
	if s.class[answered].count+s.class[handshaken].count < s.limit-s.reserve {
		return true
	}
	if f.class != unanswered {
		return true // it already has its room
	}
	for lower := answered; lower < c; lower++ {
		if s.class[lower].count > 0 {
			s.demote(s.victim(lower))
			return true
		}
	}
	if heaviest := s.heaviest(c); heaviest != none && s.sources[heaviest].prefix != f.sourcePrefix() {
		s.demote(s.sources[heaviest].oldest)
		return true
	}
	return false
}

func (s *shard) demote(i uint32) {
	s.note(i)
	s.leave(i)
	s.enter(i, unanswered)
}

// victim returns the flow of a class to evict: the one that has been idle longest, of the
// source that holds most if that is more than its share, otherwise of all.
func (s *shard) victim(c class) uint32 {
	if heaviest := s.heaviest(c); heaviest != none {
		return s.sources[heaviest].oldest
	}
	return s.class[c].oldest
}

// heaviest returns the source that holds most flows of a class, or none if no source exceeds
// its share. Fewer than shareOf sources can exceed it.
func (s *shard) heaviest(c class) uint32 {
	heaviest, most := uint32(none), uint32(0)
	for _, i := range s.heavy[c] {
		if n := s.sources[i].count; n > most {
			heaviest, most = i, n
		}
	}
	return heaviest
}

// sourceChain returns the head of the chain that a source is in.
func (s *shard) sourceChain(prefix uint64, c class) *uint32 {
	return &s.order.chains[mix(prefix^s.secret[0], s.secret[1]^uint64(c)<<32)%uint64(s.limit)]
}

// sourceOf returns the number of a source, and adds the source if there is none.
func (s *shard) sourceOf(prefix uint64, c class) uint32 {
	chain := s.sourceChain(prefix, c)
	for i := *chain; i != none; i = s.sources[i].next {
		if f := &s.sources[i]; f.prefix == prefix && f.class == c {
			return i
		}
	}
	i := s.order.free
	if i == none {
		i = uint32(len(s.sources))
		s.sources = append(extend(s.sources, s.limit), source{})
	} else {
		s.order.free = s.sources[i].next
	}
	s.sources[i] = source{prefix: prefix, class: c, queue: emptyQueue, next: *chain}
	*chain = i
	return i
}

func (s *shard) freeSource(i uint32) {
	at := s.sourceChain(s.sources[i].prefix, s.sources[i].class)
	for *at != i {
		at = &s.sources[*at].next
	}
	*at = s.sources[i].next
	s.sources[i] = source{next: s.order.free}
	s.order.free = i
}
