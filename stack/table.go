package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// Options are a table's limits. All but Begun and Key are required.
type Options struct {
	// TimeoutIPv4 and TimeoutIPv6 limit the time from the first fragment of a datagram to its
	// completion, whatever arrives in between (net.ipv4.ipfrag_time and net.ipv6.ip6frag_time
	// are 30 and 60 s).
	TimeoutIPv4, TimeoutIPv6 time.Duration
	Memory                   int64 // limit in bytes on memory for incomplete datagrams, including bookkeeping
	MaxFragments             int   // limit on the fragments of one datagram
	MaxDatagrams             int   // limit on incomplete datagrams, including discarded ones
	// Ledger is told about changes by Expire and Close, and by callers that have no ledger of
	// their own ([Reassembler.With], [Validator.With]).
	Ledger Ledger
	// Begun returns the part of a fragment's datagram that was forwarded before a [Validator]
	// got any of it, if there is one. It is nil if there never is. It is called once for each
	// datagram, with a part of the table locked.
	Begun func(p *packet.Parsed, side verdict.Side) (Beginning, bool)
	// Key is the key of the hash by which sources share the table. If it is nil, the table uses
	// a secret random key. With the same key, two tables make the same decisions for the same
	// input.
	Key *[16]byte
}

// Ledger is told of every fragment that the table takes in or drops later, and of every
// datagram that is accepted. It may be called with a part of the table locked, so it must
// neither block nor call the table.
type Ledger interface {
	// Held is called when one more fragment is held. The datagram is only valid during the
	// call.
	Held(d *Datagram)
	// Dropped is called when all held fragments of a datagram, possibly none, were dropped for
	// one reason. The ledger owns the datagram from then on, and releases it then or later.
	Dropped(d *Datagram, why verdict.Reason)
	// Credited is called when a datagram was accepted and its source earned credit. The
	// datagram is only valid during the call.
	Credited(d *Datagram)
}

func (o *Options) timeout(f family) time.Duration {
	if f == familyIPv4 {
		return o.TimeoutIPv4
	}
	return o.TimeoutIPv6
}

// shardMemory is enough for at least one datagram of 65,535 bytes in fragments of 8.
const shardMemory = 8 << 20

// shardDatagrams is the least number of datagrams per shard. A table for fewer datagrams is not
// split, so that any source can use all of it.
const shardDatagrams = 1024

// maxShards limits the memory that the shards themselves take.
const maxShards = 256

// Table holds the incomplete datagrams: their keys, deadlines and memory, and which one is
// evicted next. What it keeps of their fragments differs between the [Reassembler] and the
// [Validator].
type Table struct {
	options Options
	hash    keyedHash
	shards  []*shard
	credits *credits
}

// newTable returns an empty table, with engines if datagrams are to be reassembled.
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

// shard returns the shard of a source.
func (t *Table) shard(from source) *shard {
	return t.shards[t.hash.index(from, len(t.shards))]
}

// intake is the view of a table for one goroutine that gives it fragments. Most fragments come
// from the same source as the one before.
type intake struct {
	*Table
	ledger Ledger
	from   source // of the last fragment
	latest *shard // the shard of that source; nil before the first fragment
}

// lock locks the shard of a source.
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

// Deadline returns the earliest deadline of all incomplete datagrams; false if there are none.
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

// Usage is what a table holds at one moment.
type Usage struct {
	Datagrams int   // incomplete datagrams, including discarded ones
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

// Close drops everything that is still held, for [verdict.FragmentShutdown]. The table must not
// be used afterwards.
func (t *Table) Close() {
	for _, s := range t.shards {
		s.close(t.options.Ledger)
	}
}
