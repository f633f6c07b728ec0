package flow

import (
	"slices"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// class is how much a flow has shown to be wanted. In a full table the lower
// classes give way first.
type class uint8

const (
	// unanswered: only the origin has sent, or there is no room in a higher class.
	unanswered class = iota
	// answered: the other side answered.
	answered
	// handshaken: TCP or SCTP, and the origin answered the other side's SYN or
	// cookie, which nobody can who made up his address.
	handshaken
	classes
)

// merit returns the class that a flow could be in. A denied flow keeps its own:
// a flood must not make the table forget that it was denied.
func (f *Flow) merit() class {
	switch {
	case f.State == TimeWait, f.State == Close, f.State == Closed, !f.replied:
		return unanswered
	case f.assured && (f.key.protocol() == packet.ProtocolTCP || f.key.protocol() == packet.ProtocolSCTP):
		return handshaken
	}
	return answered
}

// links are what a shard keeps its flows in order by.
type links struct {
	chain, next uint32        // of the flow's hash; the number of the next flow in it
	neighbors   [queues]place // by the queue that the flow is in
	source      uint32        // number in the shard; none where the flow is unused
}

// The queues that a flow is in.
const (
	ofClass  = iota // of its class
	ofSource        // of its source in its class
	queues
)

// queue is a list of flows by their numbers, from the one that was idle for the
// longest time to the one seen last.
type queue struct{ oldest, newest uint32 }

var emptyQueue = queue{none, none}

// place is where in a queue a flow is: the numbers of its neighbors.
type place struct{ older, newer uint32 }

// push puts a flow at the end of a queue of a kind.
func (s *shard) push(q *queue, kind int, i uint32) {
	s.flows[i].neighbors[kind] = place{q.newest, none}
	if q.newest == none {
		q.oldest = i
	} else {
		s.flows[q.newest].neighbors[kind].newer = i
	}
	q.newest = i
}

// unlink takes a flow out of a queue of a kind.
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

// order is by what a full shard decides which flow gives way. Each class is a
// queue, and in each class the flows of a source, the prefix of those who began
// them, are a queue, too.
//
// A newcomer is never refused: the lowest class has always some room, so that an
// answer still finds its flow. What reaches a higher class stays there: a flow
// of the same class takes its place only if its source holds more than its share.
type order struct {
	class   [classes]counted
	heavy   [classes][]uint32 // the sources that hold more than their share
	sources []source
	chains  []uint32 // of sources, by a keyed hash
	free    uint32   // the first unused source, chained by next
	share   uint32   // flows that a source may have in a class of the shard
	reserve int      // flows: room of the lowest class
}

// counted is a queue that knows its length.
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

// Of a shard, a source may hold one in so many flows of each class before they
// give way to others, and the lowest class has room for one in so many.
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

// sourcePrefix returns the prefix that a flow counts for, by who began it: /24
// of IPv4 and /56 of IPv6, in which one has many addresses.
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

// leave takes a flow out of its class.
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

// moveAfter is how much later a flow has to be seen to move to the end of its
// lists, so that most datagrams write to one flow alone.
const moveAfter = 250 * time.Millisecond

// touch notes that a flow was seen, and puts it into the class that it merits.
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

// makeRoom makes room for a flow in one of the higher classes: beside their
// room, by a flow of a lower one of them, or of a source that holds more than
// its share, which goes back to the lowest class. It reports whether there is
// room.
func (s *shard) makeRoom(f *Flow, c class) bool {
	if s.class[answered].count+s.class[handshaken].count < s.limit-s.reserve {
		return true
	}
	if f.class != unanswered {
		return true // it has its room already
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

// victim returns the flow of a class that gives way: the one that was idle for
// the longest time of the source that holds most, where that is more than its
// share, else of all.
func (s *shard) victim(c class) uint32 {
	if heaviest := s.heaviest(c); heaviest != none {
		return s.sources[heaviest].oldest
	}
	return s.class[c].oldest
}

// heaviest returns the source that holds most flows of a class, or none where
// each holds its share at most. There are fewer than shareOf that hold more.
func (s *shard) heaviest(c class) uint32 {
	heaviest, most := uint32(none), uint32(0)
	for _, i := range s.heavy[c] {
		if n := s.sources[i].count; n > most {
			heaviest, most = i, n
		}
	}
	return heaviest
}

// sourceChain returns where the chain begins that a source is in.
func (s *shard) sourceChain(prefix uint64, c class) *uint32 {
	return &s.order.chains[mix(prefix^s.secret[0], s.secret[1]^uint64(c)<<32)%uint64(s.limit)]
}

// sourceOf returns the number of a source, which it makes if there is none.
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
