package fastpath

import (
	"sync/atomic"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// word is that of a fragment slot (bpf/layout.h).
type word uint64

func (w word) state() programFragmentState {
	return programFragmentState(w>>programFragmentWordSTATE_SHIFT) & programFragmentState(programFragmentWordSTATE_MASK)
}

// next is how many bytes of the datagram came in order.
func (w word) next() int { return int(w & word(programFragmentWordNEXT_MASK)) }

// moved returns the word in another state, of the same datagram.
func (w word) moved(state programFragmentState) word {
	use := w >> programFragmentWordUSE_SHIFT << programFragmentWordUSE_SHIFT
	return use | w&word(programFragmentWordCOLLIDED) | word(state)<<programFragmentWordSTATE_SHIFT
}

func (s *programFragmentSlot) load() word { return word(atomic.LoadUint64(&s.Word)) }

func (s *programFragmentSlot) change(from, to word) bool {
	return atomic.CompareAndSwapUint64(&s.Word, uint64(from), uint64(to))
}

// Passed returns the beginning of a fragment's datagram, if a program has forwarded
// one, and has nothing more of the datagram forwarded.
func (f *FastPath) Passed(p *packet.Parsed, from verdict.Side) (wire.Beginning, bool) {
	key := datagramKey(p, from)
	s := &f.memory.fragments[f.memory.hash(&key)&f.memory.config.FragmentMask]
	for {
		w := s.load()
		switch w.state() {
		case programFragmentStateBUSY:
			continue // for some instructions of a program
		case programFragmentStatePASSING, programFragmentStateSLOW:
		default:
			return wire.Beginning{}, false
		}
		size, arrived, same := int(s.Size), atomic.LoadUint64(&s.Arrived), s.Key == programKey(&key)
		if s.load() != w {
			continue
		}
		if !same || w.next() == 0 {
			return wire.Beginning{}, false
		}
		// It is told once: the identification may come again while the slot is slow.
		if !s.change(w, w.moved(programFragmentStateSLOW)&^word(programFragmentWordNEXT_MASK)) {
			continue
		}
		age := time.Duration(monotonic() - arrived)
		if age >= f.timeout(p.Kind) {
			return wire.Beginning{}, false
		}
		return wire.Beginning{Bytes: w.next(), Unit: size, First: time.Now().Add(-age)}, true
	}
}

func (f *FastPath) timeout(kind packet.Kind) time.Duration {
	if kind == packet.IPv6 {
		return f.options.TimeoutIPv6
	}
	return f.options.TimeoutIPv4
}

// fragmentShares is how many parts the slots of fragments are in, of which an upkeep
// looks at one.
const fragmentShares = 16

// freeFragments frees slots whose time is up: user space has nothing more of what went
// up because of them.
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
		// What user space has of the datagram, or of another one, came up to then.
		last := max(atomic.LoadUint64(&s.Arrived), atomic.LoadUint64(&s.LastUp))
		if now <= last || now-last < uint64(max(f.options.TimeoutIPv4, f.options.TimeoutIPv6)) {
			continue
		}
		s.change(w, w.moved(programFragmentStateEMPTY)&^word(programFragmentWordCOLLIDED))
	}
}
