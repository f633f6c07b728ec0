package fastpath

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

func isMissing(err error) bool { return errors.Is(err, ebpf.ErrKeyNotExist) }

// Begin sets the state of a slot to what is known about a flow.
func (f *FastPath) Begin(slot uint32, p *flow.Progress) {
	f.memory.store(slot, p)
	f.mu.Lock()
	defer f.mu.Unlock()
	s, zero := &f.memory.slots[slot], f.zero.Load()
	atomic.StoreUint64(&s.Idle, uint64(p.Idle))
	for side := range p.Ways {
		w := &p.Ways[side]
		atomic.StoreUint64(&s.Ways[side].Seen, uint64(w.Seen)+zero)
		atomic.StoreUint32(&s.Ways[side].End, w.End)
		atomic.StoreUint32(&s.Ways[side].MaxEnd, w.MaxEnd)
		atomic.StoreUint32(&s.Ways[side].MaxWin, w.MaxWin)
		atomic.StoreUint32(&s.Ways[side].MaxAck, w.MaxAck)
		atomic.StoreUint32(&s.Scale[side], uint32(w.Scale))
		tracking := &f.entries.all[slot].ways[side].tracking
		*tracking = 0
		sack := uint32(0)
		if w.SACK {
			sack = 1
		}
		atomic.StoreUint32(&s.Sack[side], sack)
		if w.Liberal {
			*tracking |= programWayFlagLIBERAL
		}
	}
}

// Load fills in what the programs did for a flow.
func (f *FastPath) Load(slot uint32, p *flow.Progress) {
	s, zero := &f.memory.slots[slot], f.zero.Load()
	for side := range p.Ways {
		of, w, loaded := &s.Ways[side], &p.Ways[side], &f.entries.loaded[slot][side]
		now := of.read()
		since := now.minus(*loaded)
		*loaded = now
		w.Datagrams, w.Bytes = since.datagrams, since.datagramBytes
		w.Seen = time.Duration(atomic.LoadUint64(&of.Seen) - zero)
		w.End, w.MaxEnd = atomic.LoadUint32(&of.End), atomic.LoadUint32(&of.MaxEnd)
		w.MaxWin, w.MaxAck = atomic.LoadUint32(&of.MaxWin), atomic.LoadUint32(&of.MaxAck)
	}
	from := verdict.Side(atomic.LoadUint32(&s.LastFrom) & 1)
	last := &s.Ways[from]
	p.Last = flow.Last{
		From: from, Seq: atomic.LoadUint32(&last.LastSeq), Ack: atomic.LoadUint32(&last.LastAck), End: atomic.LoadUint32(&last.LastEnd),
		Window: uint16(atomic.LoadUint32(&last.LastWindow)), Retransmits: uint8(atomic.LoadUint32(&last.Retransmits)),
	}
}

// Store takes over what a segment has changed that no program forwarded.
func (f *FastPath) Store(slot uint32, p *flow.Progress) { f.memory.store(slot, p) }

func (m *memory) store(slot uint32, p *flow.Progress) {
	s := &m.slots[slot]
	for side := range p.Ways {
		of, w := &s.Ways[side], &p.Ways[side]
		advance(&of.End, w.End)
		advance(&of.MaxEnd, w.MaxEnd)
		advance(&of.MaxAck, w.MaxAck)
		for old := atomic.LoadUint32(&of.MaxWin); w.MaxWin > old && !atomic.CompareAndSwapUint32(&of.MaxWin, old, w.MaxWin); {
			old = atomic.LoadUint32(&of.MaxWin)
		}
	}
	l := &p.Last
	last := &s.Ways[l.From]
	atomic.StoreUint32(&last.LastSeq, l.Seq)
	atomic.StoreUint32(&last.LastAck, l.Ack)
	atomic.StoreUint32(&last.LastEnd, l.End)
	atomic.StoreUint32(&last.LastWindow, uint32(l.Window))
	atomic.StoreUint32(&last.Retransmits, uint32(l.Retransmits))
	atomic.StoreUint32(&s.LastFrom, uint32(l.From))
}

// advance advances a sequence number (RFC 9293 §3.4).
func advance(number *uint32, to uint32) {
	for {
		old := atomic.LoadUint32(number)
		if int32(to-old) <= 0 || atomic.CompareAndSwapUint32(number, old, to) {
			return
		}
	}
}

// Release stops the programs from forwarding for a flow, and fills in what they did.
func (f *FastPath) Release(slot uint32, p *flow.Progress) {
	f.mu.Lock()
	f.retire(slot)
	f.mu.Unlock()
	f.Load(slot, p)
}

// Forget stops the programs from dropping frames with the key of a flow that is about to begin.
func (f *FastPath) Forget(k *flow.Key) {
	if f.denied.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	slot, found := f.index[*k]
	if !found {
		return
	}
	if e := &f.entries.all[slot]; e.ways[verdict.Inside].denies || e.ways[verdict.Outside].denies {
		f.retire(slot)
	}
}
