package fastpath

import (
	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// Keys returns the keys of the flows that have an entry.
func (f *FastPath) Keys() []flow.Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := make([]flow.Key, 0, len(f.used))
	for _, slot := range f.used {
		if e := &f.entries.all[slot]; !e.stopped {
			keys = append(keys, e.key)
		}
	}
	return keys
}

// Expect makes entries for flows that another process's fast path knew, as many as there is
// room for. They decide nothing, but their frames are counted from now on, and the first lesson
// sets the verdict.
func (f *FastPath) Expect(keys []flow.Key) {
	for i := range keys {
		if !f.expect(&keys[i]) {
			return
		}
	}
}

// expect makes an entry. It returns false if there is no room for more.
func (f *FastPath) expect(k *flow.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	if _, found := f.index[*k]; found {
		return true
	}
	slot := f.begin(k)
	if slot == 0 {
		return false
	}
	if !f.enterKey(k, slot) {
		f.retire(slot)
		return true
	}
	f.own(slot, true)
	for side := range verdict.Side(verdict.Sides) {
		f.known.again(f.memory.fingerprint(k, side)) // so that learning starts with the first lesson
	}
	return true
}
