package flow

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"fragwall/packet"
)

// Max is the default limit on the flows of a table. A flow takes up to 272 bytes, including the
// structures to find it (TestFlowMemory).
const Max = 1 << 20

// Options configure a table.
type Options struct {
	// Secret is the key of the hash by which flows are found. Nil stands for a random one,
	// which is required if untrusted hosts may send.
	Secret *[2]uint64
	Limit  int // flows; 0 stands for [Max]
	// AnyVLANs makes flows independent of VLAN tags: each direction may have any.
	AnyVLANs bool
}

// shards is the number of parts of a table. A keyed hash selects the part; each has its own
// lock.
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

// AnyVLANs reports whether flows are found independently of the VLAN tags of a datagram.
func (t *Table) AnyVLANs() bool { return t.anyVLANs }

// none stands for no flow and no source.
const none = math.MaxUint32

// Relation is how a datagram relates to flows.
type Relation uint8

const (
	// Unrelated: it belongs to no flow and cannot begin one.
	Unrelated Relation = iota
	// Member: it belongs to the flow of its key or, if there is none, may begin it.
	Member
	// About: it is an ICMP error about a datagram of a flow.
	About
)

// Access is access to the flow that a datagram relates to. The shard of the flow is locked
// until [Access.Close].
type Access struct {
	shard *shard
	key   Key
	chain uint32
	at    uint32 // number of the flow, or none
	now   time.Duration
}

// Open finds the flow that a datagram relates to. It expects a zero Access. If the datagram is
// [Unrelated], the Access must not be used.
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

// locate returns the shard that a key is in, and its chain there.
func (t *Table) locate(k *Key) (*shard, uint32) {
	h := k.hash(t.secret, t.anyVLANs)
	s := &t.shards[h%shards]
	return s, uint32(h >> 32 * uint64(s.limit) >> 32)
}

// Close unlocks the shard.
func (a *Access) Close() { a.shard.mu.Unlock() }

// Flow returns the flow; nil if it is not known.
func (a *Access) Flow() *Flow {
	if a.at == none {
		return nil
	}
	return &a.shard.flows[a.at]
}

// Begin begins the flow of a datagram that a rule accepted, if the datagram can begin one. rule
// and generation identify the rule. If loose is set, an ACK of a TCP connection whose handshake
// was not seen can begin a flow. The flow must not be known.
func (a *Access) Begin(v *packet.View, loose bool, rule, generation uint32) {
	f := Flow{key: a.key, begun: a.now, seen: a.now, Rule: rule, Generation: generation}
	if f.begin(v, loose) {
		f.count(v)
		a.shard.forget(&a.key)
		a.at = a.shard.add(&f, a.chain, a.now)
	}
}

// Take judges a datagram by the known flow, and updates the flow. It returns false for a
// datagram that does not belong to the flow: an invalid one, or one that begins a new flow in
// its place. In the latter case, the old flow is removed.
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

// Release releases the flow from the fast path, if it is there.
func (a *Access) Release() { a.shard.release(a.at) }

// Touch keeps the flow alive.
func (a *Access) Touch() { a.shard.touch(a.at, a.now) }

// Remove removes the flow.
func (a *Access) Remove() {
	a.shard.remove(a.at)
	a.at = none
}

// Len returns the number of flows, including expired ones that have not been removed yet.
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

// Expire removes expired flows. Each call checks one of the given number of parts of each
// shard, and the next call the next part.
func (t *Table) Expire(now time.Duration, parts int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.sweep(now, (len(s.flows)+parts-1)/parts)
		s.mu.Unlock()
	}
}

// shard is a part of a table: a hash table with chaining.
type shard struct {
	secret   [2]uint64
	limit    int  // flows
	anyVLANs bool // see Options

	mu sync.Mutex
	// mu guards:
	offload Offload // nil if nothing is offloaded
	flows   []Flow
	chains  []uint32
	free    uint32 // the first unused flow, chained by next
	used    int
	hand    int // where the next sweep begins
	order
	changes  *changes // nil unless the flows are being saved
	progress Progress // buffer for calls to the fast path
	begun    Key      // the key that the fast path is to forget
}

func (s *shard) init(o *Options) {
	limit := o.Limit / shards
	s.secret, s.limit, s.anyVLANs = *o.Secret, limit, o.AnyVLANs
	s.chains = empty(limit)
	s.free = none
	s.order.init(limit)
}

// empty returns a list of n numbers that are all none.
func empty(n int) []uint32 {
	return slices.Repeat([]uint32{none}, n)
}

// extend makes room for one more entry in a list of at most limit. It doubles the capacity, but
// unlike append never exceeds the limit.
func extend[T any](list []T, limit int) []T {
	if len(list) < cap(list) {
		return list
	}
	longer := make([]T, len(list), max(min(2*cap(list), limit), 16))
	copy(longer, list)
	return longer
}

// find returns the number of a flow that has not expired, or none.
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

// sweepStep is the number of flows that a full shard checks for expiry before it evicts one.
const sweepStep = 8

// add adds a new flow to a chain, and returns its number.
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

// evict removes a flow to make room for a new one. The queues do not know when an offloaded
// flow was last seen.
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

// sweep removes the expired ones of the next n flows.
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
