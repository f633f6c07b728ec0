package flow

import "time"

// changes records what changes in a shard while another process takes over its flows.
type changes struct {
	copied numbers  // by flow: it was saved
	noted  numbers  // it is in flows
	flows  []uint32 // numbers of the flows that have changed since, some of which may be unused by now
	gone   []Key    // of flows that were saved and no longer exist
}

// numbers is a set of numbers.
type numbers []uint64

func (b *numbers) add(i uint32) {
	for int(i/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b *numbers) remove(i uint32) {
	if b.has(i) {
		(*b)[i/64] &^= 1 << (i % 64)
	}
}

func (b *numbers) has(i uint32) bool { return int(i/64) < len(*b) && (*b)[i/64]>>(i%64)&1 != 0 }

// note records that a flow is about to change.
func (s *shard) note(i uint32) {
	if c := s.changes; c != nil && !c.noted.has(i) {
		c.noted.add(i)
		c.flows = append(c.flows, i)
	}
}

// noteRemoval records that a flow is about to be removed.
func (s *shard) noteRemoval(i uint32) {
	if c := s.changes; c != nil {
		if c.copied.has(i) {
			c.gone = append(c.gone, s.flows[i].key)
		}
		c.copied.remove(i)
	}
}

// Put receives flows, and before them the keys of flows that no longer exist. The slices are
// only valid during the call.
type Put func(gone []Key, flows []Saved) error

// saving is the state of a save in progress.
type saving struct {
	now   func() time.Duration
	pause Pause
	put   Put
	gone  []Key
	flows []Saved
}

// Save passes all flows that are not expired to put. It holds no lock while it calls put. From
// then on the table records changes for [Table.SaveChanges], until [Table.EndSave].
func (t *Table) Save(now func() time.Duration, pause Pause, put Put) error {
	to := saving{now: now, pause: pause, put: put}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.changes = &changes{}
		s.mu.Unlock()
		for at, more := 0, true; more; at += MaxHold {
			err := to.handOut(s, func() {
				end := min(at+MaxHold, len(s.flows))
				for number := at; number < end; number++ {
					to.add(s, uint32(number))
				}
				more = end < len(s.flows)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Saving reports whether the table records changes.
func (t *Table) Saving() bool {
	last := &t.shards[shards-1]
	last.mu.Lock()
	defer last.mu.Unlock()
	return last.changes != nil
}

// SaveChanges passes to put what has changed since [Table.Save] or since its own last call. The
// table must be recording changes.
func (t *Table) SaveChanges(now func() time.Duration, pause Pause, put Put) error {
	to := saving{now: now, pause: pause, put: put}
	for i := range t.shards {
		s := &t.shards[i]
		for more := true; more; {
			err := to.handOut(s, func() { more = to.addChanges(s, s.changes) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// EndSave stops recording changes.
func (t *Table) EndSave() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.changes = nil
		s.mu.Unlock()
	}
}

// handOut calls add with the shard locked, and then passes the added flows to put.
func (to *saving) handOut(s *shard, add func()) error {
	if err := to.pause(MaxHold); err != nil {
		return err
	}
	to.gone, to.flows = to.gone[:0], to.flows[:0]
	s.mu.Lock()
	add()
	s.mu.Unlock()
	if len(to.gone)+len(to.flows) == 0 {
		return nil
	}
	return to.put(to.gone, to.flows)
}

// add adds the flow with this number, if there is one, or records that it no longer exists.
func (to *saving) add(s *shard, i uint32) {
	if s.flows[i].slot != 0 {
		s.sync(i)
	}
	c, f := s.changes, &s.flows[i]
	c.noted.remove(i)
	switch {
	case f.live(to.now()):
		c.copied.add(i)
		to.flows = append(to.flows, f.save())
	case c.copied.has(i): // it has expired: its timeout is shorter by now
		c.copied.remove(i)
		to.gone = append(to.gone, f.key)
	}
}

// addChanges adds what has changed, and reports whether there is more.
func (to *saving) addChanges(s *shard, c *changes) (more bool) {
	n := min(MaxHold, len(c.gone))
	to.gone, c.gone = append(to.gone, c.gone[:n]...), c.gone[n:]
	if n == MaxHold {
		return true
	}
	for len(c.flows) > 0 && len(to.flows) < MaxHold {
		i := c.flows[len(c.flows)-1]
		c.flows = c.flows[:len(c.flows)-1]
		if c.noted.has(i) {
			to.add(s, i)
		}
	}
	return len(c.flows) > 0
}
