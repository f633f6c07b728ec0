package flow

import (
	"time"

	"fragwall/packet"
)

// MaxHold is the number of flows that are copied or removed while a shard is locked. This takes
// microseconds, for which a datagram may have to wait.
const MaxHold = 256

// Pause is called each time before a shard is locked, with the number of flows that are about
// to be read. It may wait, to let others proceed, and ends the walk by returning an error.
type Pause func(flows int) error

// Visit is called with a copy of a flow that has not expired, and with the time. The copy is
// valid until Visit returns. An error ends the walk.
type Visit func(f *Flow, now time.Duration) error

// Match reports whether a flow is selected.
type Match func(f *Flow, now time.Duration) bool

// Walk calls visit for each flow. It holds no lock meanwhile. A flow that exists from the
// beginning to the end is visited once; one that begins or ends during the walk may be visited.
func (t *Table) Walk(now func() time.Duration, pause Pause, visit Visit) error {
	return t.walk(now, pause, func(_ *shard, _ int, flows []Flow, at time.Duration) error {
		for i := range flows {
			if flows[i].live(at) {
				if err := visit(&flows[i], at); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Delete removes the flows that match, and returns their number. Their later datagrams begin a
// flow or belong to none. It holds no lock while it calls match.
func (t *Table) Delete(now func() time.Duration, pause Pause, match Match) (deleted int, err error) {
	err = t.walk(now, pause, func(s *shard, first int, flows []Flow, at time.Duration) error {
		matched := flows[:0]
		var numbers [MaxHold]uint32
		for i := range flows {
			if flows[i].live(at) && match(&flows[i], at) {
				numbers[len(matched)] = uint32(first + i)
				matched = append(matched, flows[i])
			}
		}
		if len(matched) > 0 {
			deleted += s.removeAll(numbers[:len(matched)], matched)
		}
		return nil
	})
	return deleted, err
}

// walk calls visit with copies of the flows of each shard, without holding a lock. Some of the
// copies may be unused or expired. first is the number of the first flow.
func (t *Table) walk(now func() time.Duration, pause Pause, visit func(s *shard, first int, flows []Flow, at time.Duration) error) error {
	var buffer [MaxHold]Flow
	for i := range t.shards {
		s := &t.shards[i]
		for at := 0; ; at += MaxHold {
			if err := pause(MaxHold); err != nil {
				return err
			}
			n := s.copyFrom(at, buffer[:])
			if n == 0 {
				break
			}
			if err := visit(s, at, buffer[:n], now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// live reports whether a copy is of a flow that has not expired.
func (f *Flow) live(now time.Duration) bool { return f.source != none && !f.expired(now) }

// copyFrom copies flows from number first on, including unused ones, and returns how many.
func (s *shard) copyFrom(first int, to []Flow) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first >= len(s.flows) {
		return 0
	}
	for i := first; i < min(first+len(to), len(s.flows)); i++ {
		if s.flows[i].slot != 0 {
			s.sync(uint32(i))
		}
	}
	return copy(to, s.flows[first:])
}

// removeAll removes the flows with these numbers that are still the ones that were copied, and
// returns how many.
func (s *shard) removeAll(numbers []uint32, copies []Flow) (removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, number := range numbers {
		f := &s.flows[number]
		if f.source != none && f.key == copies[i].key && f.begun == copies[i].begun {
			s.remove(number)
			removed++
		}
	}
	return removed
}

// Find returns a copy of the flow with the key of a datagram; false if there is none.
func (t *Table) Find(v *packet.View, now time.Duration) (f Flow, known bool) {
	var a Access
	relation := t.Open(&a, v, now)
	if relation == Unrelated {
		return f, false
	}
	defer a.Close()
	if relation == About || a.Flow() == nil {
		return f, false
	}
	return *a.Flow(), true
}
