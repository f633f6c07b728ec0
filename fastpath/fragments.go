package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// word is the state word of a fragment slot (bpf/layout.h).
type word uint64

func (w word) state() programFragmentState {
	return programFragmentState(w>>programFragmentWordSTATE_SHIFT) & programFragmentState(programFragmentWordSTATE_MASK)
}

// next returns how many bytes of the datagram arrived in order.
func (w word) next() int { return int(w & word(programFragmentWordNEXT_MASK)) }

// moved returns the word in another state, for the same datagram.
func (w word) moved(state programFragmentState) word {
	use := w >> programFragmentWordUSE_SHIFT << programFragmentWordUSE_SHIFT
	return use | w&word(programFragmentWordCOLLIDED) | word(state)<<programFragmentWordSTATE_SHIFT
}

func (s *programFragmentSlot) load() word { return word(atomic.LoadUint64(&s.Word)) }

func (s *programFragmentSlot) change(from, to word) bool {
	return atomic.CompareAndSwapUint64(&s.Word, uint64(from), uint64(to))
}

// Passed returns the beginning of a fragment's datagram if a program has forwarded one, and
// stops forwarding this datagram.
func (f *FastPath) Passed(p *packet.Parsed, from verdict.Side) (wire.Beginning, bool) {
	key := datagramKey(p, from)
	_, begun, ok := f.tell(&f.memory.fragments[f.memory.hash(&key)&f.memory.config.FragmentMask], &key)
	return begun, ok
}

// tell returns the beginning of the datagram in a slot, and its key, if a program has forwarded
// one, and stops forwarding this datagram. want is the key that it must have; nil means any.
func (f *FastPath) tell(s *programFragmentSlot, want *flow.Key) (key flow.Key, begun wire.Beginning, ok bool) {
	for {
		w := s.load()
		switch w.state() {
		case programFragmentStateBUSY:
			continue // while a program executes a few instructions
		case programFragmentStatePASSING, programFragmentStateSLOW:
		default:
			return key, begun, false
		}
		key = flowKey(&s.Key)
		size, arrived := int(s.Size), atomic.LoadUint64(&s.Arrived)
		if s.load() != w {
			continue
		}
		if want != nil && key != *want || w.next() == 0 {
			return key, begun, false
		}
		// Return it only once: the identification may be reused while the slot is slow.
		if !s.change(w, w.moved(programFragmentStateSLOW)&^word(programFragmentWordNEXT_MASK)) {
			continue
		}
		age := time.Duration(monotonic() - arrived)
		if age >= f.timeout(&key) {
			return key, begun, false
		}
		return key, wire.Beginning{Bytes: w.next(), Unit: size, First: time.Now().Add(-age)}, true
	}
}

// Block makes the programs pass up all fragments of a datagram until its deadline.
func (f *FastPath) Block(p *packet.Parsed, from verdict.Side) {
	key := datagramKey(p, from)
	s := &f.memory.fragments[f.memory.hash(&key)&f.memory.config.FragmentMask]
	for {
		w := s.load()
		if w.state() == programFragmentStateBUSY {
			continue // while a program executes a few instructions
		}
		if s.change(w, w.moved(programFragmentStateBLOCKED)) {
			atomic.StoreUint64(&s.LastUp, monotonic())
			return
		}
	}
}

// timeout returns the timeout of a datagram, by its key.
func (f *FastPath) timeout(k *flow.Key) time.Duration {
	if k.Ports&1 == 1 {
		return f.options.TimeoutIPv6
	}
	return f.options.TimeoutIPv4
}

// fragmentShares is the number of parts of the fragment slots. Each upkeep checks one part.
const fragmentShares = 16

// freeFragments frees slots whose deadline has passed: user space no longer holds anything of
// the fragments that went up because of them.
func (f *FastPath) freeFragments(now uint64) {
	all := f.memory.fragments
	n := max(len(all)/fragmentShares, 1)
	for range n {
		if f.scanned++; f.scanned >= len(all) {
			f.scanned = 0
		}
		s := &all[f.scanned]
		w := s.load()
		if state := w.state(); state == programFragmentStateEMPTY || state == programFragmentStateBUSY {
			continue
		}
		// All fragments that user space holds because of this slot were passed up before then.
		last := max(atomic.LoadUint64(&s.Arrived), atomic.LoadUint64(&s.LastUp))
		if now <= last || now-last < uint64(max(f.options.TimeoutIPv4, f.options.TimeoutIPv6)) {
			continue
		}
		s.change(w, w.moved(programFragmentStateEMPTY)&^word(programFragmentWordCOLLIDED))
	}
}
