package flow

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"sync"
	"time"

	"fragwall/packet"
)

// Max is how many flows a table holds by default. They take up to 272 bytes
// each, with everything that finds them (TestFlowMemory).
const Max = 1 << 20

// Options are what a table is made by.
type Options struct {
	// Secret is the key of the hash that flows are found by; nil stands for a
	// random one, which it has to be where anybody may send.
	Secret *[2]uint64
	Limit  int // flows; 0 stands for [Max]
	// AnyVLANs has both directions of a flow bear whatever tags they like.
	AnyVLANs bool
}

// shards is how many parts a table is in, by a keyed hash, each with a lock of
// its own.
const shards = 64

// Table holds the known flows of a wire. Both directions share it.
type Table struct {
	anyVLANs bool
	secret   [2]uint64
	shards   [shards]shard
}

// New returns an empty table.
func New(o Options) *Table {
	t := &Table{anyVLANs: o.AnyVLANs}
	if o.Secret == nil {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		o.Secret = &[2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
	}
	if o.Limit == 0 {
		o.Limit = Max
	}
	t.secret = *o.Secret
	for i := range t.shards {
		t.shards[i].init(&o)
	}
	return t
}

// AnyVLANs reports whether flows are found whatever tags a datagram bears.
func (t *Table) AnyVLANs() bool { return t.anyVLANs }

// none stands for no flow and no source.
const none = math.MaxUint32

// Relation is what a datagram has to do with flows.
type Relation uint8

const (
	// Unrelated: it belongs to no flow and begins none.
	Unrelated Relation = iota
	// Member: it belongs to the flow of its key or, if there is none, may begin it.
	Member
	// About: it is an ICMP error about a datagram of a flow.
	About
)

// Access is access to the flow that a datagram has to do with. The part of the
// table that the flow is in is locked until [Access.Close].
type Access struct {
	shard *shard
	key   Key
	chain uint32
	at    uint32 // number of the flow, or none
	now   time.Duration
}

// Open finds the flow that a datagram has to do with. Where the datagram is
// [Unrelated], the access, which is zero before, must not be used.
func (t *Table) Open(a *Access, v *packet.View, now time.Duration) (r Relation) {
	switch {
	case a.key.setOf(v):
		r = Member
	case a.key.setQuoted(v):
		r = About
	default:
		return Unrelated
	}
	a.shard, a.chain = t.locate(&a.key)
	a.now = now
	a.shard.mu.Lock()
	a.at = a.shard.find(&a.key, a.chain, t.anyVLANs, now)
	return r
}

// locate returns the part of the table that a key is in, and its chain there.
func (t *Table) locate(k *Key) (*shard, uint32) {
	h := k.hash(t.secret, t.anyVLANs)
	s := &t.shards[h%shards]
	return s, uint32(h >> 32 * uint64(s.limit) >> 32)
}

// Close unlocks the part of the table.
func (a *Access) Close() { a.shard.mu.Unlock() }

// Flow returns the flow; nil where it is not known.
func (a *Access) Flow() *Flow {
	if a.at == none {
		return nil
	}
	return &a.shard.flows[a.at]
}

// Begin begins the flow of a datagram that a rule of a policy's generation
// accepted, where the datagram can begin one. With loose, an ACK of a TCP
// connection whose handshake was not seen can. The flow must not be known.
func (a *Access) Begin(v *packet.View, loose bool, rule, generation uint32) {
	f := Flow{key: a.key, begun: a.now, seen: a.now, Rule: rule, Generation: generation}
	if f.begin(v, loose) {
		f.count(v)
		a.shard.forget(&a.key)
		a.at = a.shard.add(&f, a.chain, a.now)
	}
}

// Take judges a datagram by the flow that is known, and brings the flow on. It
// returns false for one that does not belong to it: an invalid one, or one that
// begins another flow in its place, after which the flow is not known any more.
func (a *Access) Take(v *packet.View) bool {
	f := a.Flow()
	var r result
	if f.slot == 0 {
		r = f.take(v, a.now)
	} else {
		r = a.shard.takeOffloaded(a.at, v, a.now)
	}
	known := r == isKnown || r == isRefreshed || r == isOver
	if known {
		f.count(v)
	}
	switch r {
	case isNew, isOver:
		a.Remove()
		return known
	case isRefreshed:
		a.Touch()
	}
	return known
}

// Release takes the flow from the fast path, if it is there.
func (a *Access) Release() { a.shard.release(a.at) }

// Touch keeps the flow alive.
func (a *Access) Touch() { a.shard.touch(a.at, a.now) }

// Remove removes the flow.
func (a *Access) Remove() {
	a.shard.remove(a.at)
	a.at = none
}

// Len returns how many flows there are, expired ones that were not removed yet
// included.
func (t *Table) Len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.used
		s.mu.Unlock()
	}
	return n
}

// Expire removes flows whose time is up, looking at one in so many of each
// part, which are others each time.
func (t *Table) Expire(now time.Duration, parts int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.sweep(now, (len(s.flows)+parts-1)/parts)
		s.mu.Unlock()
	}
}

// shard is a part of a table: a hash table with chains.
type shard struct {
	secret   [2]uint64
	limit    int  // flows
	anyVLANs bool // see Options

	mu sync.Mutex
	// mu guards:
	offload Offload // nil where nothing is offloaded
	flows   []Flow
	chains  []uint32
	free    uint32 // the first unused flow, chained by next
	used    int
	hand    int // where sweeping goes on
	order
	changes  *changes // nil unless the flows are being saved
	progress Progress // that is told and asked of the fast path
	begun    Key      // that the fast path is to forget
}

func (s *shard) init(o *Options) {
	limit := o.Limit / shards
	s.secret, s.limit, s.anyVLANs = *o.Secret, limit, o.AnyVLANs
	s.chains = empty(limit)
	s.free = none
	s.order.init(limit)
}

// empty returns a list of so many numbers that stand for nothing.
func empty(n int) []uint32 {
	list := make([]uint32, n)
	for i := range list {
		list[i] = none
	}
	return list
}

// extend makes room for one more in a list that never has more than limit. It
// doubles the room, but never beyond the limit, as append would.
func extend[T any](list []T, limit int) []T {
	if len(list) < cap(list) {
		return list
	}
	longer := make([]T, len(list), max(min(2*cap(list), limit), 16))
	copy(longer, list)
	return longer
}

// find returns the number of a flow that is not expired, or none.
func (s *shard) find(k *Key, chain uint32, anyVLANs bool, now time.Duration) uint32 {
	for i := s.chains[chain]; i != none; i = s.flows[i].next {
		f := &s.flows[i]
		if !f.key.is(k, anyVLANs) {
			continue
		}
		if f.slot != 0 {
			s.sync(i)
		}
		if f.expired(now) {
			s.remove(i)
			return none
		}
		s.note(i)
		return i
	}
	return none
}

// sweepStep is how many flows a full shard looks at for expired ones before it
// evicts.
const sweepStep = 8

// add puts in a new flow, with its chain, and returns its number.
func (s *shard) add(f *Flow, chain uint32, now time.Duration) uint32 {
	if s.used == s.limit {
		s.sweep(now, sweepStep)
	}
	if s.used == s.limit {
		s.evict()
	}
	i := s.free
	if i == none {
		i = uint32(len(s.flows))
		s.flows = append(extend(s.flows, s.limit), Flow{})
	} else {
		s.free = s.flows[i].next
	}
	f.chain, f.next = chain, s.chains[chain]
	s.flows[i] = *f
	s.chains[chain] = i
	s.used++
	s.enter(i, unanswered)
	s.note(i)
	return i
}

// evict removes the flow that gives way to a new one. Of a flow that is offloaded
// the queues don't know when it was seen last.
func (s *shard) evict() {
	i := s.victim(unanswered)
	for range sweepStep {
		if s.flows[i].slot == 0 {
			break
		}
		s.sync(i)
		i = s.victim(unanswered)
	}
	s.remove(i)
}

// remove frees a flow.
func (s *shard) remove(i uint32) {
	s.noteRemoval(i)
	f := &s.flows[i]
	if f.slot != 0 {
		s.offload.Release(f.slot, &s.progress)
	}
	at := &s.chains[f.chain]
	for *at != i {
		at = &s.flows[*at].next
	}
	*at = f.next
	s.leave(i)
	*f = Flow{links: links{next: s.free, source: none}}
	s.free = i
	s.used--
}

// sweep frees the expired ones of the next n flows.
func (s *shard) sweep(now time.Duration, n int) {
	for range min(n, len(s.flows)) {
		if s.hand++; s.hand >= len(s.flows) {
			s.hand = 0
		}
		f := &s.flows[s.hand]
		if f.slot != 0 {
			s.sync(uint32(s.hand))
		}
		if f.source != none && f.expired(now) {
			s.remove(uint32(s.hand))
		}
	}
}
