package flow

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Secret returns the key of the hash by which flows are found.
func (t *Table) Secret() [2]uint64 { return t.secret }

// Clear removes all flows.
func (t *Table) Clear() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for n := range s.flows {
			if s.flows[n].source != none {
				s.remove(uint32(n))
			}
		}
		s.mu.Unlock()
	}
}

// SetSecret changes the hash key of a table without flows. To take over the flows of a full
// table, the key must be the same as that table's. Otherwise some shards would receive too many
// flows.
func (t *Table) SetSecret(secret [2]uint64) error {
	if secret == t.secret {
		return nil
	}
	if t.Len() > 0 {
		return errors.New("a table with flows keeps its secret")
	}
	t.secret = secret
	for i := range t.shards {
		t.shards[i].secret = secret
	}
	return nil
}

// Restore takes over flows that another table saved ([Table.Save]). Only one goroutine may use
// it. It ends with [Restore.Done].
type Restore struct {
	table *Table
	put   map[*shard][]uint32 // numbers of the flows that were inserted
}

// NewRestore begins to take over flows. The table's clock must continue that of the other
// table.
func (t *Table) NewRestore() *Restore { return &Restore{t, map[*shard][]uint32{}} }

// Forget removes the flows with these keys, if they are known.
func (r *Restore) Forget(keys []Key) {
	for i := range keys {
		s, chain := r.table.locate(&keys[i])
		s.mu.Lock()
		s.forgetKey(&keys[i], chain)
		s.mu.Unlock()
	}
}

func (s *shard) forgetKey(k *Key, chain uint32) {
	for i := s.chains[chain]; i != none; i = s.flows[i].next {
		if s.flows[i].key.is(k, s.anyVLANs) {
			s.remove(i)
			return
		}
	}
}

// Put inserts flows, each replacing the flow with the same key. It leaves out expired ones. The
// policy in force judges each flow again when it is first seen, as after a reload.
func (r *Restore) Put(flows []Saved, now time.Duration) error {
	for i := range flows {
		f, err := flows[i].flow()
		if err != nil {
			return err
		}
		f.seen = min(f.seen, now)
		if f.expired(now) {
			r.Forget([]Key{f.key})
			continue
		}
		s, chain := r.table.locate(&f.key)
		s.mu.Lock()
		s.forgetKey(&f.key, chain)
		at := s.add(&f, chain, now)
		s.promote(at, class(flows[i].Class))
		s.mu.Unlock()
		r.put[s] = append(r.put[s], at)
	}
	return nil
}

// promote moves an inserted flow to the class that it had, if there is room.
func (s *shard) promote(i uint32, c class) {
	if c > unanswered && s.makeRoom(&s.flows[i], c) {
		s.leave(i)
		s.enter(i, c)
	}
}

// Done sorts the inserted flows by when they were last seen.
func (r *Restore) Done() {
	for s, numbers := range r.put {
		s.mu.Lock()
		s.sort(numbers)
		s.mu.Unlock()
	}
	clear(r.put)
}

// sort moves the flows with these numbers, some of which may be unused by now, to the end of
// their queues, by when they were last seen.
func (s *shard) sort(numbers []uint32) {
	slices.SortFunc(numbers, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(s.flows[a].seen, s.flows[b].seen), cmp.Compare(a, b))
	})
	for _, i := range slices.Compact(numbers) {
		if f := &s.flows[i]; f.source != none {
			s.leave(i)
			s.enter(i, f.class)
		}
	}
}
