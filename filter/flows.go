package filter

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"sync"
	"time"

	"fragwall/packet"
)

// MaxFlows is how many flows there are at most. They take up to 200 bytes
// each, with all that finds them (TestFlowMemory).
const MaxFlows = 1 << 20

// flowShards is how many parts the flows are in, by a keyed hash, each with a
// lock of its own.
const flowShards = 64

// flows are the known flows of a wire. Both directions share them.
type flows struct {
	secret [2]uint64
	shards [flowShards]flowShard
}

// newFlows returns an empty table for at most limit flows.
func newFlows(secret *[2]uint64, limit int) *flows {
	t := new(flows)
	if secret == nil {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		secret = &[2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
	}
	t.secret = *secret
	for i := range t.shards {
		s := &t.shards[i]
		s.secret, s.limit = t.secret, limit/flowShards
		s.chains = fill(make([]uint32, s.limit))
		s.sourceChains = fill(make([]uint32, s.limit))
		s.byCount = fill(make([]uint32, s.limit+1))
		s.free, s.freeSource = nil32, nil32
	}
	return t
}

// nil32 stands for no flow and no source.
const nil32 = math.MaxUint32

func fill(list []uint32) []uint32 {
	for i := range list {
		list[i] = nil32
	}
	return list
}

// shard returns the part that a flow is in, and where its chain begins there.
func (t *flows) shard(k *flowKey) (*flowShard, uint32) {
	h := k.hash(t.secret)
	s := &t.shards[h%flowShards]
	return s, uint32(h >> 32 * uint64(s.limit) >> 32)
}

// len returns how many flows there are, expired ones that were not found yet
// included.
func (t *flows) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.used
		s.mu.Unlock()
	}
	return n
}

// expire frees flows whose time is up, looking at one part in shares of all.
func (t *flows) expire(now time.Duration, shares int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.sweep(now, (len(s.flows)+shares-1)/shares)
		s.mu.Unlock()
	}
}

// flowShard holds a part of the flows: a hash table with chains, and besides
// them their sources, which are the prefixes of those who began them. In a
// full shard the source with most flows gives up the one that was idle for the
// longest time, so that who scans ports pays with flows of its own.
type flowShard struct {
	secret [2]uint64
	limit  int // flows

	mu sync.Mutex
	// mu guards:
	flows  []flow
	chains []uint32
	free   uint32 // the first unused flow, chained by next
	used   int
	hand   int // where sweeping goes on

	sources      []flowSource
	sourceChains []uint32
	byCount      []uint32 // the first source with so many flows
	most         int      // flows of the source that has most
	freeSource   uint32
}

// flowSource is the prefix that flows come from, which are in a list from the
// one that was idle for the longest time on.
type flowSource struct {
	prefix         uint64
	oldest, newest uint32
	count          uint32
	next           uint32 // in the chain of its hash
	before, after  uint32 // among the sources with as many flows
}

// sourcePrefix returns the prefix that a flow counts for, by who began it: /24
// of IPv4 and /56 of IPv6, in which one has many addresses.
func sourcePrefix(k *flowKey, origin packet.Side) uint64 {
	a := k.in
	if origin == packet.Outside {
		a = k.out
	}
	if k.ports&1 == 0 {
		return a[1] & 0xffffff00 // an IPv4 address is in the lowest 32 bits
	}
	return a[0]&^0xff | 1
}

// find returns the number of a flow that is not expired, or nil32.
func (s *flowShard) find(k *flowKey, chain uint32, now time.Duration) uint32 {
	for i := s.chains[chain]; i != nil32; i = s.flows[i].next {
		f := &s.flows[i]
		if !f.key.is(k) {
			continue
		}
		if f.expired(now) {
			s.remove(i)
			return nil32
		}
		return i
	}
	return nil32
}

// touch notes that a flow was seen. It moves to the end of its source's list
// once a second, so that most datagrams write to one flow alone.
func (s *flowShard) touch(i uint32, now time.Duration) {
	f := &s.flows[i]
	moves := now/time.Second > f.seen/time.Second
	f.seen = max(f.seen, now)
	if moves {
		s.unlink(f)
		s.link(i)
	}
}

// sweepStep is how many flows a full shard looks at for expired ones before it
// evicts.
const sweepStep = 8

// add puts in a new flow, with its chain, and returns its number.
func (s *flowShard) add(f flow, chain uint32, now time.Duration) uint32 {
	if s.used == s.limit {
		s.sweep(now, sweepStep)
	}
	if s.used == s.limit {
		s.remove(s.sources[s.byCount[s.most]].oldest)
	}
	i := s.free
	if i == nil32 {
		i = uint32(len(s.flows))
		s.flows = append(s.flows, flow{})
	} else {
		s.free = s.flows[i].next
	}
	f.seen = now
	f.chain, f.next = chain, s.chains[chain]
	f.source = s.sourceOf(sourcePrefix(&f.key, f.origin))
	s.flows[i] = f
	s.chains[chain] = i
	s.used++
	s.link(i)
	s.recount(f.source, 1)
	return i
}

// remove frees a flow.
func (s *flowShard) remove(i uint32) {
	f := &s.flows[i]
	at := &s.chains[f.chain]
	for *at != i {
		at = &s.flows[*at].next
	}
	*at = f.next
	s.unlink(f)
	s.recount(f.source, -1)
	*f = flow{next: s.free, source: nil32}
	s.free = i
	s.used--
}

// sweep frees the expired ones of the next n flows.
func (s *flowShard) sweep(now time.Duration, n int) {
	for range min(n, len(s.flows)) {
		if s.hand++; s.hand >= len(s.flows) {
			s.hand = 0
		}
		if f := &s.flows[s.hand]; f.source != nil32 && f.expired(now) {
			s.remove(uint32(s.hand))
		}
	}
}

// link puts a flow at the end of its source's list.
func (s *flowShard) link(i uint32) {
	f := &s.flows[i]
	from := &s.sources[f.source]
	f.older, f.newer = from.newest, nil32
	if from.newest == nil32 {
		from.oldest = i
	} else {
		s.flows[from.newest].newer = i
	}
	from.newest = i
}

func (s *flowShard) unlink(f *flow) {
	from := &s.sources[f.source]
	if f.older == nil32 {
		from.oldest = f.newer
	} else {
		s.flows[f.older].newer = f.newer
	}
	if f.newer == nil32 {
		from.newest = f.older
	} else {
		s.flows[f.newer].older = f.older
	}
}

// sourceOf returns the number of the source with a prefix, which it makes if
// there is none.
func (s *flowShard) sourceOf(prefix uint64) uint32 {
	chain := &s.sourceChains[mix(prefix^s.secret[0], s.secret[1])%uint64(s.limit)]
	for i := *chain; i != nil32; i = s.sources[i].next {
		if s.sources[i].prefix == prefix {
			return i
		}
	}
	i := s.freeSource
	if i == nil32 {
		i = uint32(len(s.sources))
		s.sources = append(s.sources, flowSource{})
	} else {
		s.freeSource = s.sources[i].next
	}
	s.sources[i] = flowSource{prefix: prefix, oldest: nil32, newest: nil32, next: *chain}
	*chain = i
	return i
}

// recount adds to a source's number of flows, and frees it with its last one.
func (s *flowShard) recount(i uint32, by int) {
	f := &s.sources[i]
	if f.count > 0 {
		if f.before == nil32 {
			s.byCount[f.count] = f.after
		} else {
			s.sources[f.before].after = f.after
		}
		if f.after != nil32 {
			s.sources[f.after].before = f.before
		}
	}
	if f.count = uint32(int(f.count) + by); f.count == 0 {
		s.freeSourceOf(i)
	} else {
		f.before, f.after = nil32, s.byCount[f.count]
		if f.after != nil32 {
			s.sources[f.after].before = i
		}
		s.byCount[f.count] = i
		s.most = max(s.most, int(f.count))
	}
	for s.most > 0 && s.byCount[s.most] == nil32 {
		s.most--
	}
}

func (s *flowShard) freeSourceOf(i uint32) {
	f := &s.sources[i]
	at := &s.sourceChains[mix(f.prefix^s.secret[0], s.secret[1])%uint64(s.limit)]
	for *at != i {
		at = &s.sources[*at].next
	}
	*at = f.next
	*f = flowSource{next: s.freeSource}
	s.freeSource = i
}
