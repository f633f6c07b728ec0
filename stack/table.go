package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// Options are a table's limits. All but Begun and Key are required.
type Options struct {
	// TimeoutIPv4 and TimeoutIPv6 are how long a datagram may take from its
	// first arrival, whatever arrives later (net.ipv4.ipfrag_time and
	// net.ipv6.ip6frag_time are 30 and 60 s).
	TimeoutIPv4, TimeoutIPv6 time.Duration
	Memory                   int64 // bytes, for all that waits, bookkeeping included
	MaxFragments             int   // a datagram
	MaxDatagrams             int   // in waiting, given up ones included
	// Ledger is told by Expire and Close, and by who names no other one
	// ([Reassembler.With], [Validator.With]).
	Ledger Ledger
	// Begun returns the part of the datagram of a fragment that went on before a
	// [Validator] got any of it, if it did; nil where none ever does. It is called
	// once for each datagram, with a part of the table locked.
	Begun func(p *packet.Parsed, side verdict.Side) (Beginning, bool)
	// Key is that of the hash by which sources share the table. Nil stands for
	// one that nobody knows; with a given one, two tables that are told the same
	// do the same.
	Key *[16]byte
}

// Ledger is told of every fragment that the table takes in and that it drops
// later, and of every datagram that is accepted. It may be called with a part of the
// table locked, so it must neither block nor call the table.
type Ledger interface {
	// Held says that one more fragment waits. The datagram is lent for the time
	// of the call.
	Held(d *Datagram)
	// Dropped says that all fragments of a datagram that waited, which may be
	// none, were dropped for one reason. It hands the datagram over, for the
	// ledger to release, then or later.
	Dropped(d *Datagram, why verdict.Reason)
	// Credited says that a datagram was accepted, to its source's credit. The datagram
	// is lent for the time of the call.
	Credited(d *Datagram)
}

func (o *Options) timeout(f family) time.Duration {
	if f == familyIPv4 {
		return o.TimeoutIPv4
	}
	return o.TimeoutIPv6
}

// A shard has memory for at least one datagram of 65,535 bytes in fragments
// of 8.
const shardMemory = 8 << 20

// A table with room for few datagrams is not split, so that the room is
// anyone's.
const shardDatagrams = 1024

// maxShards bounds what the shards themselves take.
const maxShards = 256

// Table holds the datagrams of which fragments are still to come: keys,
// deadlines, memory, and who has to give way. What is kept of their fragments
// differs between the [Reassembler] and the [Validator].
type Table struct {
	options Options
	hash    keyedHash
	shards  []*shard
	credits *credits
}

// newTable returns an empty table, with engines where datagrams are to be put
// together.
func newTable(o Options, engines bool) *Table {
	n := int(min(o.Memory/shardMemory, int64(o.MaxDatagrams)/shardDatagrams, maxShards))
	n = max(n, 1)
	t := &Table{options: o, hash: newKeyedHash(o.Key)}
	t.credits = &credits{hash: t.hash}
	for range n {
		s := newShard(&t.options, t.credits, int(o.Memory/int64(n)), o.MaxDatagrams/n)
		if engines {
			s.engine = gvisor.NewEngine()
		}
		t.shards = append(t.shards, s)
	}
	return t
}

// shard returns the part of the table that a source has a share in.
func (t *Table) shard(from source) *shard {
	return t.shards[t.hash.index(from, len(t.shards))]
}

// intake is a table for one goroutine that gives it fragments, which come mostly
// from the source that the one before came from.
type intake struct {
	*Table
	ledger Ledger
	from   source // of the latest fragment
	latest *shard // that has it; nil before the first
}

// lock locks the part of the table that a source has a share in.
func (i *intake) lock(from source) *shard {
	if i.latest == nil || i.from != from {
		i.from, i.latest = from, i.shard(from)
	}
	i.latest.lock(i.ledger)
	return i.latest
}

// Expire drops the datagrams whose deadline is at or before now.
func (t *Table) Expire(now time.Time) {
	for _, s := range t.shards {
		s.lock(t.options.Ledger)
		s.expire(now)
		s.mu.Unlock()
	}
}

// Deadline returns the earliest deadline of what waits; false where nothing
// does.
func (t *Table) Deadline() (time.Time, bool) {
	var earliest time.Time
	for _, s := range t.shards {
		s.mu.Lock()
		for f := range s.deadlines {
			d := s.deadlines[f].first
			if d != nil && (earliest.IsZero() || d.deadline.Before(earliest)) {
				earliest = d.deadline
			}
		}
		s.mu.Unlock()
	}
	return earliest, !earliest.IsZero()
}

// Usage is what a table holds at a moment.
type Usage struct {
	Datagrams int   // in waiting, given up ones included
	Bytes     int64 // of memory, as charged against the limit
}

// Usage returns what the table holds.
func (t *Table) Usage() Usage {
	var u Usage
	for _, s := range t.shards {
		s.mu.Lock()
		u.Datagrams += len(s.waiting)
		u.Bytes += int64(s.charged)
		s.mu.Unlock()
	}
	return u
}

// Close drops what still waits, for [verdict.FragmentShutdown]. The table is
// of no use afterwards.
func (t *Table) Close() {
	for _, s := range t.shards {
		s.close(t.options.Ledger)
	}
}
